"""Feedback turns after a call. One wording for training, evaluation and data synthesis."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from codedance_verl.environment.resized_images import MARKS, PatchCount, resized_size
from codedance_verl.formats import FORMATS, TURN_TAGS
from codedance_verl.types import IMAGE_PLACEHOLDER, Execution, ExecutionError, ExecutionStatus, RenderedImage

MAX_STDOUT_CHARS = 2_000
LEAST_CHARS = 200
LEAST_PIXELS = 56 * 56
OUTPUT_CUT = "[... output cut ...]"
LAST_TURN = "This is your last turn: give your answer now."

_TAGS = {
    "tool_response",
    *(tag.strip("</>") for tag in (*TURN_TAGS, *(kind.call_start for kind in FORMATS.values())) if tag.startswith("<")),
}
"""Names of the tags of feedback turns and of every format."""

# The special tokens of the Qwen family, the tags above, and the placeholders of verl's data sets.
_MARKUP = re.compile(rf"<\|[^|>\s]*\|>|</?(?:{'|'.join(sorted(_TAGS))})>|<(?:image|video|audio)>", re.IGNORECASE)


@dataclass(frozen=True)
class ObservationLimits:
    """Most of an execution that is shown.

    Attributes:
        chars: of stdout and of the error, each.
        pixels: of each image.
        images: count; the first ones are shown.
        last_turn: the model is asked to answer now.
    """

    chars: int = MAX_STDOUT_CHARS
    pixels: int = 1 << 40
    images: int = 1 << 40
    last_turn: bool = False


def escape_markup(text: str) -> str:
    """Breaks up special tokens and tags that code printed, so that they reach the tokenizer as plain text."""
    return _MARKUP.sub(lambda found: found.group().replace("<", "< ", 1), text)


def clip_text(text: str, limit: int = MAX_STDOUT_CHARS) -> str:
    """Keeps head and tail of a text longer than `limit` characters, with a line that says how much was left out."""
    if len(text) <= limit:
        return text
    head, tail = limit * 3 // 4, limit // 4
    return f"{text[:head]}\n[... {len(text) - head - tail} characters left out ...]\n{text[-tail:]}"


def observation_text(execution: Execution, limits: ObservationLimits | None = None) -> str:
    """Returns the feedback turn as text, with one `<image>` placeholder per image that is shown, in order.

    Stdout comes first, then the error or status if there is one, then the images. Special tokens are escaped. A line
    names what is left out or made smaller.
    """
    limits = limits or ObservationLimits()
    parts = [clip_text(part, limits.chars) for part in (execution.stdout.rstrip("\n"), _status_line(execution))]
    body = [escape_markup(part) for part in parts if part]
    shown = execution.images[: limits.images]
    body += [IMAGE_PLACEHOLDER] * len(shown)
    body += list(_cut_lines(execution, body))
    if smaller := sum(_pixels(image) > limits.pixels for image in shown):
        body.append(f"({smaller} of the images shown smaller than they are.)")
    if hidden := len(execution.images) - len(shown):
        body.append(f"({hidden} further images are not shown: there is no room for them.)")
    lines = ["<tool_response>", *body, "</tool_response>"]
    return "\n".join([*lines, LAST_TURN] if limits.last_turn else lines)


def _cut_lines(execution: Execution, said: Sequence[str]) -> Iterator[str]:
    """Yields a line for each thing that was cut when the code ran; for its output only where no mark shows the cut."""
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
    """Returns the largest limits, none over `largest`, at which the observation costs at most `room` tokens.

    Pixels are given up first, then text, then images, the last one first. None when nothing fits. `text_cost` counts
    the tokens of an observation text without its images.
    """

    def fits(limits: ObservationLimits) -> bool:
        tokens = text_cost(observation_text(execution, limits))
        return tokens + sum(patches(*size) + MARKS for size in shown_sizes(execution.images, limits)) <= room

    return next((limits for limits in _ever_smaller(execution, largest) if fits(limits)), None)


def _ever_smaller(execution: Execution, largest: ObservationLimits) -> Iterator[ObservationLimits]:
    """Yields `largest`, then the limits to try in its place, in order."""
    images = execution.images
    limits = replace(largest, images=min(largest.images, len(images)))
    yield limits
    pixels = min(limits.pixels, max(map(_pixels, images), default=0))  # the largest budget that matters
    while pixels > LEAST_PIXELS:
        pixels = max(pixels // 2, LEAST_PIXELS)
        limits = replace(limits, pixels=pixels)
        yield limits
    while limits.chars > LEAST_CHARS:
        limits = replace(limits, chars=max(limits.chars // 2, LEAST_CHARS))
        yield limits
    while limits.images > 0:
        limits = replace(limits, images=limits.images - 1)
        yield limits


def shown_sizes(images: Sequence[RenderedImage], limits: ObservationLimits) -> list[tuple[int, int]]:
    """Returns width and height of each image that is shown."""
    return [resized_size(image.width, image.height, limits.pixels) for image in images[: limits.images]]


def refused(fault: str) -> Execution:
    """Returns the stand-in for an execution where the call could not be read."""
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
