"""Trajectory in the terminal: thoughts of the model, code with its output and images, the answer."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image
from rich.console import Console, RenderableType
from rich.panel import Panel
from rich.rule import Rule
from rich.segment import Segment, Segments
from rich.style import Style
from rich.syntax import Syntax
from rich.text import Text

from codedance_verl.formats import ParsedTurn
from codedance_verl.runtime.text import visible
from codedance_verl.serving.replies import content
from codedance_verl.serving.service import Outcome, StreamListener
from codedance_verl.types import Execution, RenderedImage, Turn

PREVIEW_COLUMNS, PREVIEW_ROWS = 40, 16


class ConsoleRenderer(StreamListener):
    """Prints a trajectory turn by turn. Images that code shows are stored in `folder`, numbered as they come."""

    def __init__(self, console: Console, folder: Path) -> None:
        self._console = console
        self._folder = folder
        self._turns = 0
        self.stored: list[Path] = []

    def turn_sampled(self, turn: Turn, parsed: ParsedTurn) -> None:
        self._turns += 1
        self._console.print(Rule(Text(f"turn {self._turns}"), align="left", style="dim"))
        acts = parsed.code is not None or parsed.answer is not None
        thought = turn.text[: parsed.start] if acts else turn.text
        if thought.strip():
            # the model wrote it: control characters must not reach the terminal, nor brackets rich's markup
            self._console.print(Text(visible(thought.strip()), style="italic"))
        if parsed.code is not None:
            code = Syntax(visible(parsed.code), "python", word_wrap=True)
            self._console.print(Panel(code, title="code", title_align="left"))

    def code_ran(self, turn: Turn) -> None:
        execution = turn.execution
        if execution is None:
            return
        title = f"{execution.status}, {execution.duration_s * 1000:.0f} ms"
        if execution.truncated:
            title += f", cut: {', '.join(execution.truncated)}"
        style = "green" if execution.succeeded else "red"
        if text := _output(execution):
            self._console.print(Panel(Text(visible(text)), title=title, title_align="left", border_style=style))
        else:
            self._console.print(Text(f"[{title}]", style=style))
        for image in execution.images:
            self._console.print(f"image {image.width} x {image.height}: {self._store(image)}", soft_wrap=True)
            if self._console.is_terminal:
                self._console.print(preview(image.png))

    def answered(self, outcome: Outcome) -> None:
        """Prints the answer, or the reason why there is none."""
        text = content(outcome) or f"(no answer: {outcome.finish})"
        self._console.print(Panel(Text(visible(text)), title="answer", title_align="left", border_style="bold"))

    def _store(self, image: RenderedImage) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{len(self.stored) + 1:02d}_{image.sha256[:8]}.png"
        path.write_bytes(image.png)
        self.stored.append(path)
        return path


def preview(png: bytes) -> RenderableType:
    """Returns an image in coloured half blocks, two pixels to a character."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    image.thumbnail((PREVIEW_COLUMNS, 2 * PREVIEW_ROWS))
    lines: list[Segment] = []
    for y in range(0, image.height - 1, 2):
        for x in range(image.width):
            upper, lower = (f"rgb{image.getpixel((x, y + row))}".replace(" ", "") for row in (0, 1))
            # the upper half block is drawn in the foreground colour, the lower half is background
            lines.append(Segment("▀", Style.parse(f"{upper} on {lower}")))
        lines.append(Segment.line())
    return Segments(lines)


def _output(execution: Execution) -> str:
    parts = [execution.stdout.rstrip("\n")]
    if execution.error is not None:
        parts.append(execution.error.traceback or f"{execution.error.kind}: {execution.error.message}")
    return "\n".join(part for part in parts if part)
