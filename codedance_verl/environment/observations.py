"""What the model is told after its code ran. One wording for training, evaluation and data synthesis."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from codedance_verl.environment.resized_images import MARKS, PatchCount, resized_size
from codedance_verl.types import IMAGE_PLACEHOLDER, Execution, ExecutionError, ExecutionStatus, RenderedImage

MAX_STDOUT_CHARS = 2_000
LEAST_CHARS = 200
LEAST_PIXELS = 56 * 56
OUTPUT_CUT = "[... output cut ...]"
LAST_TURN = "This is your last turn: give your answer now."

# The special tokens of the Qwen family and the tags of this environment.
_MARKUP = re.compile(
    r"<\|[^|>\s]*\|>|</?(?:tool_response|tool_call|think|code|answer)>|<(?:image|video|audio)>", re.IGNORECASE
)


@dataclass(frozen=True)
class ObservationLimits:
    """How much of an execution is shown.

    Attributes:
        chars: of stdout and of the error, each.
        pixels: of each picture.
        images: the first so many.
        last_turn: whether the model is told to answer now.
    """

    chars: int = MAX_STDOUT_CHARS
    pixels: int = 1 << 40
    images: int = 1 << 40
    last_turn: bool = False


def escape_markup(text: str) -> str:
    """Break up special tokens and tags that code printed, so that they reach the tokenizer as plain text."""
    return _MARKUP.sub(lambda found: found.group().replace("<", "< ", 1), text)


def clip_text(text: str, limit: int = MAX_STDOUT_CHARS) -> str:
    """Keep head and tail of a text longer than `limit` characters and say how much was left out."""
    if len(text) <= limit:
        return text
    head, tail = limit * 3 // 4, limit // 4
    return f"{text[:head]}\n[... {len(text) - head - tail} characters left out ...]\n{text[-tail:]}"


def observation_text(execution: Execution, sizes: ObservationLimits | None = None) -> str:
    """The feedback turn as text, with one `<image>` placeholder per picture that is shown, in order.

    Stdout comes first, then the error or status if there is one, then the pictures. Special tokens are escaped. The
    model is told of what is left out or made smaller.
    """
    sizes = sizes or ObservationLimits()
    parts = [clip_text(part, sizes.chars) for part in (execution.stdout.rstrip("\n"), _status_line(execution))]
    body = [escape_markup(part) for part in parts if part]
    shown = execution.images[: sizes.images]
    body += [IMAGE_PLACEHOLDER] * len(shown)
    body += list(_cut_lines(execution, body))
    if smaller := sum(_pixels(image) > sizes.pixels for image in shown):
        body.append(f"({smaller} of the images shown smaller than they are.)")
    if hidden := len(execution.images) - len(shown):
        body.append(f"({hidden} further images are not shown: there is no room for them.)")
    lines = ["<tool_response>", *body, "</tool_response>"]
    return "\n".join([*lines, LAST_TURN] if sizes.last_turn else lines)


def _cut_lines(execution: Execution, said: Sequence[str]) -> Iterator[str]:
    """A line for each thing that was cut when the code ran; the middle of its output only where no mark shows that."""
    for cut in execution.truncated:
        kind, _, what = cut.partition(": ")
        if kind == "image_size":
            yield f"(An image was too large and was made smaller{what and f', {what} pixels'}.)"
        elif kind == "images":
            yield f"({what.removesuffix('dropped')}further images were dropped: the code showed too many.)"
        elif kind == "stdout" and not any(OUTPUT_CUT in part for part in said):
            yield "(The code printed more than is kept: the middle of its output is gone.)"


def fit(
    execution: Execution, largest: ObservationLimits, room: int, text_cost: Callable[[str], int], patches: PatchCount
) -> ObservationLimits | None:
    """The largest sizes, none over `largest`, at which the observation costs at most `room` tokens.

    Pixels are given up first, then text, then pictures, the last one first. None when nothing fits. `text_cost` counts
    the tokens of an observation text without its pictures.
    """

    def fits(sizes: ObservationLimits) -> bool:
        tokens = text_cost(observation_text(execution, sizes))
        return tokens + sum(patches(*size) + MARKS for size in view_sizes(execution.images, sizes)) <= room

    return next((sizes for sizes in _ever_smaller(execution, largest) if fits(sizes)), None)


def _ever_smaller(execution: Execution, largest: ObservationLimits) -> Iterator[ObservationLimits]:
    """`largest`, then what is tried in its place, in order."""
    images = execution.images
    sizes = replace(largest, images=min(largest.images, len(images)))
    yield sizes
    pixels = min(sizes.pixels, max(map(_pixels, images), default=0))  # the largest budget that matters
    while pixels > LEAST_PIXELS:
        pixels = max(pixels // 2, LEAST_PIXELS)
        sizes = replace(sizes, pixels=pixels)
        yield sizes
    while sizes.chars > LEAST_CHARS:
        sizes = replace(sizes, chars=max(sizes.chars // 2, LEAST_CHARS))
        yield sizes
    while sizes.images > 0:
        sizes = replace(sizes, images=sizes.images - 1)
        yield sizes


def view_sizes(images: Sequence[RenderedImage], sizes: ObservationLimits) -> list[tuple[int, int]]:
    """Width and height of each picture that is shown."""
    return [resized_size(image.width, image.height, sizes.pixels) for image in images[: sizes.images]]


def refused(fault: str) -> Execution:
    """What stands for an execution where the call could not be read."""
    return Execution(ExecutionStatus.REJECTED, error=ExecutionError("Rejected", fault, ""))


def _pixels(image: RenderedImage) -> int:
    return image.width * image.height


def _status_line(execution: Execution) -> str:
    match execution.status:
        case ExecutionStatus.TIMEOUT if execution.error is not None:
            return f"The code was stopped at its time limit. {execution.error.traceback}"
        case ExecutionStatus.TIMEOUT:
            return "The code was stopped at its time limit."
        case ExecutionStatus.KILLED:
            return "The interpreter was stopped; its variables are gone."
        case ExecutionStatus.REJECTED if execution.error is not None:
            return f"The code was not run: {execution.error.message}"
        case ExecutionStatus.REJECTED:
            return "The code was not run."
        case ExecutionStatus.ERROR if execution.error is not None:
            return execution.error.traceback or f"{execution.error.kind}: {execution.error.message}"
        case ExecutionStatus.NO_OUTPUT:
            return "(no output)"
        case _:
            return ""
