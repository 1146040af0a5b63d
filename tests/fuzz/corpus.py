"""Valid messages of the sandbox's protocol, every kind and both directions: what a mutation starts from."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

from codedance_verl.sandbox.config import SandboxConfig

CALL = 1
CONFIG = SandboxConfig(max_images=4, max_image_pixels=4096, max_stdout_bytes=1024)
FAULT = {"kind": "NameError", "message": "name 'é' is not defined", "traceback": "Traceback:\n  cell 1, line 1: é"}


def _png(mode: str, size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, "PNG")
    return buffer.getvalue()


PNGS = [_png("L", (3, 2)), _png("RGB", (8, 5)), _png("RGBA", (1, 1)), _png("P", (5, 5)), _png("I;16", (4, 4))]
LARGE_PNG = _png("L", (100, 100))


def image(png: bytes) -> dict[str, Any]:
    return {"png": png, "sha256": "0" * 64, "width": 8, "height": 5}


def result(**changes: Any) -> dict[str, Any]:
    """A `result` as the supervisor of a session reports it, without fault but for `changes`."""
    plain = {"op": "result", "call": CALL, "outcome": "done", "stdout": "", "error": None, "images": []}
    return {**plain, "truncated": [], "seconds": 0.004, **changes}


_HELLO = {"op": "hello", "version": 3, "name": "codedance-4711-0a1b2c3d"}

RESULTS = [
    result(stdout="42\n"),
    result(stdout="é " * 100, truncated=["stdout"]),
    result(outcome="error", stdout="half", error=FAULT),
    result(outcome="cancelled", error={"kind": "Timeout", "message": "", "traceback": ""}),
    result(outcome="died", error=FAULT, truncated=["images", "image_size"]),
    result(stdout="no trailing newline"),
    *(result(images=[image(png)]) for png in PNGS),
    result(images=[image(PNGS[0]), image(PNGS[1])], stdout="two"),
]

MESSAGES: list[dict[str, Any]] = [
    {**_HELLO, "role": "init", "pid": 1, "uid_span": 1 << 32},
    {**_HELLO, "role": "zygote", "pid": 7, "modules": ["numpy", "PIL.Image", "cv2", "matplotlib.pyplot"]},
    {**_HELLO, "role": "session", "session": "00112233aabbccdd"},
    {"op": "open", "session": "00112233aabbccdd", "uid": 1 << 24, "limits": CONFIG.session_limits()},
    {"op": "refused", "session": "00112233aabbccdd", "reason": "Resource temporarily unavailable"},
    {"op": "input", "image": None},
    {"op": "input", "image": PNGS[1]},
    {"op": "ready", "leader": 4711},
    {"op": "unusable", "reason": "ValueError: 4 bytes that are no picture"},
    {"op": "run", "call": CALL, "code": "import numpy as np\nprint(np.arange(3))"},
    {"op": "cancel", "call": CALL},
    {"op": "kill", "session": "00112233aabbccdd", "uid": 1 << 24, "leader": 4711},
    {"op": "killed", "session": "00112233aabbccdd"},
    {"op": "pong", "processes": 12},
    {"code": "x = 1"},
    {"image": image(PNGS[1])},
    {"done": {"error": None, "truncated": []}},
    {"done": {"error": FAULT, "truncated": ["images"]}},
    *RESULTS,
]
