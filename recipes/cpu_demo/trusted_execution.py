"""Runner of generator-made code in this process while data is made. Never for code that a model wrote.

The records are the sandbox's own (`Execution`), so that a demonstration shows exactly what a rollout would show.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import io
from typing import Any

import numpy as np
from PIL import Image

from codedance_verl.types import (
    Execution,
    ExecutionError,
    ExecutionStatus,
    RenderedImage,
)


def render_png(image: Image.Image) -> RenderedImage:
    """The image as lossless PNG bytes with their hash and size."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)  # data sets hold thousands: time counts, size less
    png = buffer.getvalue()
    return RenderedImage(hashlib.sha256(png).hexdigest(), image.width, image.height, png)


class TrustedSession:
    """Cells run one after the other over one namespace in which `input_image` is the image (RGB)."""

    def __init__(self, image: Image.Image) -> None:
        self._namespace: dict[str, Any] = {
            "input_image": image.copy(),
            "__name__": "__main__",
        }

    def run(self, code: str) -> Execution:
        """Runs one cell; a trailing expression is displayed as in a notebook."""
        stdout = io.StringIO()
        try:
            with contextlib.redirect_stdout(stdout):
                value = self._run_cell(code)
        except Exception as error:
            message = str(error)
            return Execution(
                ExecutionStatus.ERROR,
                stdout.getvalue(),
                ExecutionError(type(error).__name__, message, f"{type(error).__name__}: {message}"),
            )
        images = (render_png(value),) if isinstance(value, Image.Image) else ()
        if value is not None and not images:
            stdout.write(f"{value!r}\n")
        empty = not images and not stdout.getvalue()
        return Execution(
            ExecutionStatus.NO_OUTPUT if empty else ExecutionStatus.OK,
            stdout.getvalue(),
            images=images,
        )

    def _run_cell(self, code: str) -> Any:
        body = ast.parse(code).body
        last = body[-1] if body else None
        # As in a notebook, only a last expression is displayed; a statement has no value.
        if not isinstance(last, ast.Expr):
            exec(compile(ast.Module(body, []), "<cell>", "exec"), self._namespace)
            return None
        exec(compile(ast.Module(body[:-1], []), "<cell>", "exec"), self._namespace)
        return eval(compile(ast.Expression(last.value), "<cell>", "eval"), self._namespace)


def run_program(program: tuple[str, ...], image: Image.Image) -> tuple[Execution, ...]:
    """Runs all cells of a program in one fresh session."""
    session = TrustedSession(image)
    return tuple(session.run(cell) for cell in program)


def blank_like(image: Image.Image) -> Image.Image:
    """A plain grey image of the same size, for the control without sight."""
    return Image.fromarray(np.full((image.height, image.width, 3), 128, dtype=np.uint8))
