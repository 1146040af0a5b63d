"""What the model is told after its code ran. One wording for training, evaluation and data synthesis."""

from __future__ import annotations

import re

from codedance_verl.types import Execution, ExecutionStatus

IMAGE_PLACEHOLDER = "<image>"
MAX_STDOUT_CHARS = 2_000

_MARKUP = re.compile(r"<\|[^|>\s]*\|>|</?tool_response>|<image>")


def escape_markup(text: str) -> str:
    """Break up special tokens and feedback tags that code printed, so that they reach the tokenizer as plain text."""
    return _MARKUP.sub(lambda found: found.group().replace("<", "< ", 1), text)


def clip_text(text: str, limit: int = MAX_STDOUT_CHARS) -> str:
    """Keep head and tail of a text longer than `limit` characters and say how much was left out."""
    if len(text) <= limit:
        return text
    head, tail = limit * 3 // 4, limit // 4
    return f"{text[:head]}\n[... {len(text) - head - tail} characters left out ...]\n{text[-tail:]}"


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


def observation_text(execution: Execution, shown: int | None = None) -> str:
    """The feedback turn as text, with one `<image>` placeholder per displayed image, in order.

    Stdout comes first, then the error or status if there is one, then the images. Special tokens are escaped.
    `shown` is how many of the images the model gets to see (all of them by default); it is told of the rest.
    """
    shown = len(execution.images) if shown is None else shown
    parts = [clip_text(execution.stdout.rstrip("\n")), _status_line(execution)]
    body = [escape_markup(part) for part in parts if part]
    body += [IMAGE_PLACEHOLDER] * shown
    if hidden := len(execution.images) - shown:
        body.append(f"({hidden} further images are not shown: the limit of images is reached.)")
    return "\n".join(["<tool_response>", *body, "</tool_response>"])
