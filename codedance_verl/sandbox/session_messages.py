"""Messages of a session between a client and the node of the same machine, as frames of `wire.py`.

A connection is one session. The client sends `open` with the digests of its images, and `images` if the node asks for
some; then a `run` for each cell. Every request has one answer: what was asked for, or `failed` with the error. The
session ends with the connection.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from codedance_verl.errors import UserError
from codedance_verl.sandbox import errors
from codedance_verl.sandbox.wire import Message
from codedance_verl.types import Execution, ExecutionError, ExecutionStatus, RenderedImage

VERSION = 1
MAX_IMAGES = 256
"""Images of a session that these messages carry: as many as a list of a frame may hold."""

_ERRORS: dict[str, type[Exception]] = {
    kind.__name__: kind
    for kind in (
        errors.SandboxError,
        errors.SandboxBusy,
        errors.SandboxUnavailable,
        errors.SandboxFull,
        errors.SandboxInputError,
        errors.UnknownSession,
        UserError,
    )
}


def failure(error: Exception) -> Message:
    """Returns the message that `raise_failure` turns into the same error, or `SandboxError` for an unknown one."""
    known = type(error).__name__ in _ERRORS
    text = str(error) if known else f"the sandbox node failed: {type(error).__name__}: {error}"
    return {"op": "failed", "kind": type(error).__name__, "text": text[:2000]}


def raise_failure(message: Message) -> None:
    """Raises the error that a message tells of, if it does."""
    if message.get("op") == "failed":
        raise _ERRORS.get(str(message.get("kind")), errors.SandboxError)(str(message.get("text")))


def run_request(call: int, code: str, timeout_s: float | None) -> Message:
    """Returns the request of a cell. The code goes as bytes: a model may write lone surrogates, which are no UTF-8."""
    return {"op": "run", "call": call, "code": code.encode("utf-8", "surrogatepass"), "timeout_s": timeout_s}


def code_of(request: Message) -> str:
    """Returns the code of `run_request`."""
    return bytes(request["code"]).decode("utf-8", "surrogatepass")


def execution_message(call: int, execution: Execution) -> Message:
    """Returns the answer to `run_request`, without hashes of images: the client makes them (`returned_images.py`)."""
    images = [{"png": image.png, "width": image.width, "height": image.height} for image in execution.images]
    return {
        "op": "execution",
        "call": call,
        "status": execution.status.value,
        "stdout": execution.stdout,
        "error": None if execution.error is None else asdict(execution.error),
        "images": images,
        "duration_s": execution.duration_s,
        "queue_s": execution.queue_s,
        "truncated": list(execution.truncated),
    }


def execution_from(message: dict[str, Any]) -> Execution:
    """Returns the execution of `execution_message`. Raises `KeyError`, `TypeError` or `ValueError` for another one."""
    return Execution(
        status=ExecutionStatus(message["status"]),
        stdout=message["stdout"],
        error=None if message["error"] is None else ExecutionError(**message["error"]),
        images=tuple(RenderedImage("", item["width"], item["height"], item["png"]) for item in message["images"]),
        duration_s=message["duration_s"],
        queue_s=message["queue_s"],
        truncated=tuple(message["truncated"]),
    )
