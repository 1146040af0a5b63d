"""Renderer of `report.html`: the report as one page without scripts or outside resources.

Everything a model or a data file wrote is hostile here: jinja2 escapes it, the viewer's `visible` shows control and
direction characters, and images are re-encoded before they are inlined.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from markupsafe import Markup
from PIL import Image
from pygments.formatters import HtmlFormatter

from codedance_verl.evaluation.effect_sections import sections
from codedance_verl.evaluation.examples import Example, ExampleGroup
from codedance_verl.evaluation.plots import (
    COLOURS,
    Point,
    Series,
    comparison_chart,
    line_chart,
    seed_lines,
    stacked_bar,
)
from codedance_verl.evaluation.report import PARTS, Curve, Figure, Groups, Report
from codedance_verl.runtime.atomic import write_atomically
from codedance_verl.trajectories.schema import ImageRef
from codedance_verl.viewer.text import templates
from codedance_verl.viewer.trajectory_view import Bounds, TrajectoryView, trajectory_view

MAX_IMAGE_SIDE = 640
"""Pixels; larger images are made smaller before they are inlined."""

TEMPLATES = Path(__file__).parent / "templates"
"""Folder of the page, of its style (`style.css.j2`) and of the macros for trajectories (`turns.html.j2`)."""
_BOUNDS = Bounds(images=500)

GROUP_COLUMNS = (
    ("accuracy", "accuracy", "at temperature 1"),
    ("accuracy_greedy", "greedy accuracy", "at temperature 0"),
    ("tool_rate", "tool rate", "share that ran code"),
    ("turns", "turns", "mean per rollout"),
    ("execution_success", "execution success", "share of executions"),
    ("format", "format", "share well-formed"),
)
_SECONDS_LABELS = {name: name.replace("_", " ") for name in PARTS}
_SECONDS_LABELS |= {"sandbox_wait": "wait for sandbox", "log_prob": "log-probs"}
_CURVES = (  # title, whether shares, and the label of each field of a `CurvePoint`
    ("Training accuracy", True, {"accuracy": "accuracy"}),
    ("Tool rate", True, {"tool_rate_hard": "hard questions", "tool_rate_easy": "easy questions"}),
    ("Reward", False, {"reward": "mean reward"}),
    ("Turns", False, {"turns": "turns per rollout"}),
    ("Form", True, {"format": "well-formed", "execution_success": "executions that succeed"}),
)
_Figures = TypeVar("_Figures")


@dataclass(frozen=True)
class ExampleView:
    """One trajectory as the page shows it, with the folder of its images."""

    model: str
    score: float
    view: TrajectoryView
    folder: Path

    def image(self, image: ImageRef) -> str | None:
        """The image as a PNG of bounded size inside a data URI; None where it is gone or broken."""
        try:
            with Image.open(image.file(self.folder), formats=["PNG"]) as opened:
                bounded = opened.convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return None
        bounded.thumbnail((MAX_IMAGE_SIDE, MAX_IMAGE_SIDE))
        buffer = io.BytesIO()
        bounded.save(buffer, "PNG", optimize=True)
        return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def write_html(
    report: Report, exhibits: Sequence[ExampleGroup], path: Path, discoveries: Sequence[ExampleGroup] = ()
) -> None:
    """Write the page atomically."""
    write_atomically(path, render(report, exhibits, discoveries))


def render(report: Report, exhibits: Sequence[ExampleGroup], discoveries: Sequence[ExampleGroup] = ()) -> str:
    """The page as HTML; `discoveries` are the first trajectories that show a behaviour, folded away."""
    seconds = [(label, getattr(report.rl_steps.mean_seconds, name)) for name, label in _SECONDS_LABELS.items()]
    blank_rows = _beside(report.blank_image.sft, report.blank_image.rl)
    environment = templates(TEMPLATES, figure=figure_text, percent=percent, points=points, duration=duration)
    return environment.get_template("report.html.j2").render(
        report=report,
        groups=_beside(report.sft, report.rl),
        columns=GROUP_COLUMNS,
        blank_rows=[row for row in blank_rows if row[1].blank.n or row[2].blank.n],
        headline=_headline_chart(report),
        curves=[line_chart(title, _lines(report.training, names), percent=shares) for title, shares, names in _CURVES],
        stage_chart=stacked_bar("Wall time by stage", list(report.stages.items())),
        step_chart=stacked_bar("One RL step, mean", [(label, value) for label, value in seconds if value]),
        step_rows=seconds,
        exhibits=_shown(exhibits),
        discoveries=_shown(discoveries),
        **sections(report),
        colours=COLOURS,
        code_style=Markup(code_style()),
    )


def percent(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.1%}".replace("%", "\N{NO-BREAK SPACE}%")


def points(value: float | None) -> str:
    """A difference of shares in percentage points, with its sign."""
    return "n/a" if value is None else f"{value * 100:+.1f}"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "n/a"
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def figure_text(figure: Figure, name: str) -> str:
    """A figure in the unit of its column."""
    if figure.value is None:
        return "n/a"
    return f"{figure.value:.2f}" if name == "turns" else percent(figure.value)


def _beside(before: Groups[_Figures], after: Groups[_Figures]) -> list[tuple[str, _Figures, _Figures]]:
    """(title, before, after) for every group; a kind that only one side has is left out."""
    then = after.by_title()
    return [(title, figures, then[title]) for title, figures in before.by_title().items() if title in then]


def _headline_chart(report: Report) -> Markup:
    before, after = report.sft, report.rl
    rows = [
        ("accuracy", before.overall.accuracy, after.overall.accuracy),
        ("greedy accuracy", before.overall.accuracy_greedy, after.overall.accuracy_greedy),
        ("accuracy, easy", before.easy.accuracy, after.easy.accuracy),
        ("accuracy, hard", before.hard.accuracy, after.hard.accuracy),
        ("tool rate, easy", before.easy.tool_rate, after.easy.tool_rate),
        ("tool rate, hard", before.hard.tool_rate, after.hard.tool_rate),
        ("execution success", before.overall.execution_success, after.overall.execution_success),
        ("format", before.overall.format, after.overall.format),
    ]
    return comparison_chart("Held-out questions, with 95 % intervals", rows, ("before RL (SFT)", "after RL"))


def _lines(curves: Sequence[Curve], names: Mapping[str, str]) -> list[Series]:
    """The lines of each field of the points."""

    def of(name: str) -> list[tuple[int, list[Point]]]:
        return [(curve.seed, [(point.step, getattr(point, name)) for point in curve.points]) for curve in curves]

    return [line for colour, name in enumerate(names) for line in seed_lines(names[name], of(name), colour)]


def _shown(groups: Sequence[ExampleGroup]) -> list[tuple[str, list[ExampleView]]]:
    return [(group.title, list(map(_example_view, group.examples))) for group in groups]


def _example_view(example: Example) -> ExampleView:
    trajectory = example.trajectory
    return ExampleView(example.model, trajectory.reward.score, trajectory_view(trajectory, _BOUNDS), example.folder)


def code_style() -> str:
    """Colours of highlighted code for both modes."""
    light = HtmlFormatter(style="default").get_style_defs(".code")
    dark = HtmlFormatter(style="github-dark").get_style_defs(".code")
    page = ".code { background: var(--page); color: var(--text) }"
    return f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n{page}"
