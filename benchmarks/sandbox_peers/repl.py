"""A Python that runs cells and shows images, as small as it can be: no isolation, no limits, no rollback.

Used as a module by the bare interpreter, and as a program, over stdin and stdout, by the pool of plain processes and
by the containers of one session each. It is self-contained, so that its source can be handed to any Python that has
msgpack. The display rules are those of a notebook: a trailing expression is shown, and so is every open figure.

The program reads frames, a 4-byte big-endian length and a msgpack map: `op` (`open`, `run` or `close`), `call`,
`session`, and `image` or `code`. It answers each with a frame: `call`, `stdout`, `images` (PNG), `error` (text).
"""

from __future__ import annotations

import ast
import contextlib
import io
import os
import struct
import sys
import traceback
from typing import Any, BinaryIO

os.environ.setdefault("MPLBACKEND", "Agg")

PNG_LEVEL = 1  # as the project's own interpreter


class Repl:
    """The namespaces of all sessions of one process."""

    def __init__(self) -> None:
        self._namespaces: dict[str, dict[str, Any]] = {}
        self._images: list[bytes] = []

    def open(self, session: str, image: bytes | None) -> None:
        """Starts a session whose `input_image` is the encoded image `image`, as a PIL image in RGB."""
        self._namespaces[session] = {"__name__": "__main__"}
        if image is not None:
            from PIL import Image

            with Image.open(io.BytesIO(image)) as opened:
                self._namespaces[session]["input_image"] = opened.convert("RGB")

    def close(self, session: str) -> None:
        self._namespaces.pop(session, None)

    def run(self, session: str, code: str) -> dict[str, Any]:
        """Runs one cell; returns `stdout`, `images` and `error`."""
        self._images = []
        text, error = io.StringIO(), ""
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
            try:
                self._execute(code, self._namespaces[session])
                self._show_figures()
            except BaseException:
                error = traceback.format_exc(limit=-3)
        return {"stdout": text.getvalue(), "images": self._images, "error": error}

    def _execute(self, code: str, namespace: dict[str, Any]) -> None:
        tree = ast.parse(code, "<cell>")
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, "<cell>", "exec"), namespace)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), namespace)
            if value is not None:
                self._show(value)

    def _show(self, value: Any) -> None:
        image = sys.modules.get("PIL.Image")
        if image is not None and isinstance(value, image.Image):
            buffer = io.BytesIO()
            value.convert("RGB").save(buffer, "PNG", compress_level=PNG_LEVEL)
            self._images.append(buffer.getvalue())
        else:
            print(repr(value))

    def _show_figures(self) -> None:
        pyplot = sys.modules.get("matplotlib.pyplot")
        if pyplot is None:
            return
        import numpy
        from PIL import Image

        for number in pyplot.get_fignums():
            canvas = pyplot.figure(number).canvas
            canvas.draw()
            self._show(Image.fromarray(numpy.asarray(canvas.buffer_rgba())))
        pyplot.close("all")


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Answers requests one after another until `source` ends."""
    import msgpack  # type: ignore[import-untyped]

    repl = Repl()
    while header := source.read(4):
        request = msgpack.unpackb(source.read(struct.unpack(">I", header)[0]))
        answer: dict[str, Any] = {"stdout": "", "images": [], "error": ""}
        try:
            if request["op"] == "open":
                repl.open(request["session"], request["image"])
            elif request["op"] == "close":
                repl.close(request["session"])
            else:
                answer = repl.run(request["session"], request["code"])
        except Exception as error:
            answer["error"] = f"{type(error).__name__}: {error}"
        body = msgpack.packb({"call": request["call"], **answer})
        sink.write(struct.pack(">I", len(body)) + body)
        sink.flush()


def main() -> None:
    """Serves over stdin and stdout; what cells write there goes to stderr instead."""
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    source = os.fdopen(os.dup(0), "rb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    serve(source, sink)


if __name__ == "__main__":
    main()
