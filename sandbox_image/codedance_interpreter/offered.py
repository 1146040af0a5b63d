"""The question's images as files: each is written before the first cell that may read it.

Files lie in the memory of the container, a photograph's PNG with up to 3 bytes a pixel, and most cells use the decoded
images alone. A cell that names a file gets that one. A cell that lists folders, or reads a file whose name it computes
while no file was named before, gets all of them. So code finds what it would find had they all been there.
"""

from __future__ import annotations

import ast
import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import png, source
from .pixels import as_rgb
from .room import FILES, NoRoom, lacking

JPEG_QUALITY = 95
_LISTS = frozenset(
    (
        *("listdir", "scandir", "walk", "fwalk", "glob", "iglob", "rglob", "iterdir", "copytree", "make_archive"),
        *("ImageCollection", "imread_collection", "mimread"),
        *("system", "popen", "Popen", "subprocess", "execv", "execve", "posix_spawn", "spawnv"),
        *("exec", "eval", "__import__", "importlib", "runpy", "ctypes"),
    )
)
"""Names that reach files which nobody named, other programs and code in strings among them."""

_READS = frozenset(
    (
        *("open", "fopen", "FileIO", "read_bytes", "read_text", "fromfile", "memmap", "shutil", "filename"),
        *("imread", "imreadmulti", "imopen", "imiter", "improps", "imcount", "get_reader", "VideoCapture"),
        *("exists", "lexists", "isfile", "is_file", "getsize", "stat", "lstat"),
    )
)
"""Names that reach the file they are given the name of."""

_IN_MEMORY = frozenset(("BytesIO", "StringIO"))
_PATTERN = re.compile(r"[{%*?\[]")
_SHORTEST_PIECE = 6
"""Characters of a string that count as the beginning of a file's name: `input_` does, `input` is any word."""


@dataclass
class OfferedFiles:
    """The files of a session that are still to be written.

    Attributes:
        images: encoded, as the host sent them.
        directory: where the files go, absolute.
        pending: names of files that are not there yet, each with the number of its image.
        any_named: whether a cell has named one.
    """

    images: Sequence[bytes] = ()
    directory: Path = field(default_factory=Path)
    pending: dict[str, int] = field(default_factory=dict)
    any_named: bool = False

    @classmethod
    def of(cls, images: Sequence[bytes], directory: Path) -> OfferedFiles:
        """`input_image_0.png`, ... for each image, and `input_image.png` and `.jpg` for the first."""
        names = {f"input_image_{index}.png": index for index in range(len(images))}
        first = {"input_image.png": 0, "input_image.jpg": 0} if images else {}
        return cls(images, directory, names | first)

    def provide(self, code: str) -> None:
        """Write the files that a cell may read. One that is there already stays as it is.

        Raises:
            NoRoom: the container's file space is used up; nothing half-written is left.
        """
        if not self.pending:
            return
        found = _Reach.of(code, self.pending)
        everything = found.lists or (found.computes and not (found.named or self.any_named))
        self.any_named = self.any_named or bool(found.named)
        for name in list(self.pending) if everything else found.named:
            self._write(name)
            del self.pending[name]

    def _write(self, name: str) -> None:
        """Leaves a file out that is larger than a file here, or a side of a JPEG, may be."""
        path = self.directory / name
        if os.path.lexists(path):
            return
        write = _writer(self.images[self.pending[name]], "JPEG" if name.endswith(".jpg") else "PNG")
        partial = self.directory / f".{name}"  # this process may be killed at any time
        try:
            with partial.open("wb") as file:
                write(file)
            partial.rename(path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            if lacking(error) == FILES:
                raise NoRoom(FILES) from None


@dataclass(frozen=True)
class _Reach:
    """What a cell may read: files it `named`; whether it `lists` folders, or `computes` names of files it reads."""

    named: tuple[str, ...] = ()
    lists: bool = False
    computes: bool = False

    @classmethod
    def of(cls, code: str, names: dict[str, int]) -> _Reach:
        """Nothing for a cell that is no Python: it does not run."""
        try:
            tree, _ = source.parse(code, "<cell>")
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return cls()
        nodes = list(ast.walk(tree))
        strings, mentioned = list(_strings(nodes)), _mentioned(nodes)
        return cls(
            tuple(name for name in names if any(name in text for text in strings)),
            bool(mentioned & _LISTS) or any(_is_part_of_name(text, names) for text in strings),
            bool(mentioned & _READS) and bool(_given_elsewhere(nodes) & _READS),
        )


def _strings(nodes: list[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str):
                yield node.value
            elif isinstance(node.value, bytes):
                yield node.value.decode("latin-1")


def _is_part_of_name(text: str, names: dict[str, int]) -> bool:
    """Whether a string is the beginning of a file's name, or a pattern for one."""
    last = text.rpartition("/")[2]
    if len(last) < _SHORTEST_PIECE or last in names:
        return False
    beginning = _PATTERN.split(last, maxsplit=1)[0]
    is_pattern = beginning != last and len(beginning) >= _SHORTEST_PIECE
    return any(name.startswith(beginning if is_pattern else last) for name in names)


def _mentioned(nodes: list[ast.AST]) -> set[str]:
    """Last parts of the dotted names among these nodes."""
    return {name for node in nodes for name in _names(node)}


def _given_elsewhere(nodes: list[ast.AST]) -> set[str]:
    """As `_mentioned`, without calls whose first argument is plain text, or a file in memory."""
    settled = {
        id(node.func) for node in nodes if isinstance(node, ast.Call) and node.args and _is_settled(node.args[0])
    }
    return _mentioned([node for node in nodes if id(node) not in settled])


def _is_settled(argument: ast.expr) -> bool:
    if isinstance(argument, ast.Call):
        return bool(_IN_MEMORY & set(_names(argument.func)))
    return isinstance(argument, ast.Constant) and isinstance(argument.value, str | bytes)


def _names(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Name):
        yield node.id
    elif isinstance(node, ast.Attribute):
        yield node.attr
    elif isinstance(node, ast.keyword):
        yield node.arg or ""
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from (part for alias in node.names for part in alias.name.split("."))
        if isinstance(node, ast.ImportFrom):
            yield from (node.module or "").split(".")


def _writer(data: bytes, form: str) -> Callable[[Any], object]:
    """What writes an image to an open file: the given bytes where they show the same pixels in that format."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as opened:
        opened.load()
        rgb = as_rgb(opened)
        if rgb is opened and opened.format == form:
            return lambda file: file.write(data)
        image = rgb.copy() if rgb is opened else rgb
    if form == "PNG":
        return lambda file: png.write(image, file)
    return lambda file: file.write(_jpeg(image))


def _jpeg(image: Any) -> bytes:
    """In memory: an encoder that writes to a file itself hides why it could not."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()
