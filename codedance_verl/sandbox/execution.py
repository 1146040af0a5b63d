"""Turns the reply of an interpreter, which is not trusted, into an `Execution`."""

from __future__ import annotations

import re
from typing import Any

from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.returned_images import BadImage, decoded, undecoded
from codedance_verl.sandbox.terminal import as_seen
from codedance_verl.sandbox.wire import Message
from codedance_verl.types import Execution, ExecutionError, ExecutionStatus, RenderedImage

_CUT_MARK_CHARS = 64
_ERROR_CHARS = 16_000
# Only these words reach the model's prompt: anything else there would be text of the cell's choice.
_CUT = re.compile(
    r"stdout|images(?:: \d{1,9} dropped)?|image_size(?:: \d{1,9} x \d{1,9} to \d{1,9} x \d{1,9})?", re.ASCII
)
_MOST_CUTS = 10
LOST = "The interpreter had to be restarted; all variables are gone."


class ReplyError(Exception):
    """The reply breaks the protocol: the session must have tampered with its interpreter."""


def execution_of(reply: Message, call: int, config: SandboxConfig, decode: bool = True) -> Execution:
    """Checks a `result` message and builds the record; times are left to the caller. Raises `ReplyError`.

    Without `decode` of the images only the structure is checked, and their hashes are empty.
    """
    if reply.get("op") != "result" or reply.get("call") != call:
        raise ReplyError("not the result of this call")
    # The bound holds for what arrives; what a terminal makes of it is shorter.
    stdout = as_seen(_text(reply.get("stdout"), config.max_stdout_bytes + _CUT_MARK_CHARS))
    images = reply.get("images")
    if not isinstance(images, list) or len(images) > config.max_images:
        raise ReplyError("images")
    rendered = tuple(_image(item, config.max_image_pixels, decode) for item in images)
    truncated = _cuts(reply.get("truncated"))
    match reply.get("outcome"):
        case "done" if stdout.strip() or rendered:
            return Execution(ExecutionStatus.OK, stdout, None, rendered, truncated=truncated)
        case "done":
            return Execution(ExecutionStatus.NO_OUTPUT, truncated=truncated)
        case "cancelled":
            return Execution(ExecutionStatus.TIMEOUT, stdout, _error(reply.get("error")), rendered, truncated=truncated)
        case "error" | "died":
            return Execution(ExecutionStatus.ERROR, stdout, _error(reply.get("error")), rendered, truncated=truncated)
    raise ReplyError("outcome")


def rejected(reason: str) -> Execution:
    """Returns the record of a cell that was not run because of its content, with the reason for the model."""
    return Execution(ExecutionStatus.REJECTED, error=ExecutionError("Rejected", reason, f"Rejected: {reason}"))


def lost(status: ExecutionStatus) -> Execution:
    """Returns the record of a cell whose interpreter was lost with it."""
    return Execution(status, error=ExecutionError("InterpreterLost", LOST, LOST))


def _text(value: Any, limit: int) -> str:
    if not isinstance(value, str) or len(value) > limit:
        raise ReplyError("text")
    return value


def _cuts(value: Any) -> tuple[str, ...]:
    """Returns the entries of `Execution.truncated` that a reply has; anything else it has there is left out."""
    texts = [cut for cut in value if isinstance(cut, str)] if isinstance(value, list) else []
    return tuple(dict.fromkeys(cut for cut in texts if _CUT.fullmatch(cut)))[:_MOST_CUTS]


def _error(value: Any) -> ExecutionError:
    if not isinstance(value, dict):
        raise ReplyError("error")
    parts = (_text(value.get(key), _ERROR_CHARS) for key in ("kind", "message", "traceback"))
    # line by line: an error may not move up into the lines of others, the supervisor's note among them
    kind, message, traceback = ("\n".join(map(as_seen, re.split(r"\r?\n", text))) for text in parts)
    return ExecutionError(kind, message, traceback)


def _image(value: Any, max_pixels: int, decode: bool) -> RenderedImage:
    try:
        image = undecoded(value.get("png") if isinstance(value, dict) else None, max_pixels)
        return decoded(image, max_pixels) if decode else image
    except BadImage as error:
        raise ReplyError(f"image: {error}") from None
