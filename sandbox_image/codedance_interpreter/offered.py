"""Files of the question's images, each written before the first cell that may read it.

Files lie in the memory of the container, a photograph's PNG with up to 3 bytes a pixel, and most cells use the decoded
images alone. A cell that names a file gets that one. A cell that lists folders gets all of them, and so does one that
reads a file whose name it computes, where no file was named before or where names are made of others. Code in strings
counts, as cells write modules. So code finds what it would find had they all been there.
"""

from __future__ import annotations

import ast
import contextlib
import errno
import io
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import png, source
from .input_images import decode
from .room import FILES, NoRoom, fills_it, lacking

JPEG_QUALITY = 95
_LISTS = frozenset(
    (
        *("listdir", "scandir", "walk", "fwalk", "glob", "iglob", "rglob", "iterdir", "copytree", "make_archive"),
        *("ImageCollection", "imread_collection", "mimread"),
        *("system", "popen", "Popen", "subprocess", "execv", "execve", "posix_spawn", "spawnv"),
        *("exec", "eval", "__import__", "importlib", "runpy", "ctypes"),
    )
)
"""Names that reach files which no code names, other programs and code in strings among them."""

_READS = frozenset(
    (
        *("open", "fopen", "FileIO", "read_bytes", "read_text", "fromfile", "memmap", "shutil", "filename"),
        *("imread", "imreadmulti", "imopen", "imiter", "improps", "imcount", "get_reader", "VideoCapture"),
        *("exists", "lexists", "isfile", "is_file", "getsize", "stat", "lstat"),
    )
)
"""Names that reach the file they are given the name of."""

_DERIVES = frozenset(
    (
        *("replace", "with_suffix", "with_name", "with_stem", "splitext", "stem", "suffix", "suffixes", "translate"),
        *("removesuffix", "removeprefix", "sub", "subn", "split", "rsplit", "partition", "rpartition"),
    )
)
"""Names that make the name of one file of another's."""

_IN_MEMORY = frozenset(("BytesIO", "StringIO"))
_PATTERN = re.compile(r"[{%*?\[]")
_ENDING = re.compile(r"[_\d]*\.?(?:png|jpg)")
"""A string that is put behind the beginning of a file's name."""

_WORD = re.compile(r"\w+")
_SHORTEST_PIECE = 6
"""Characters of a string that count as the beginning of a file's name: `input_` does, `input` is any word."""


@dataclass(frozen=True)
class Encoded:
    """Image file as the host sent it; `form` is its format, where it shows just the pixels that code gets."""

    data: bytes | memoryview
    form: str


@dataclass
class OfferedFiles:
    """The files of a session that are still to be written.

    Attributes:
        images: as the host sent them.
        folder: where the files go, absolute.
        most_bytes: bound of the largest of the files, in bytes.
        pending: names of files that are not there yet, each with the number of its image.
        any_named: a cell has named one.
        any_derived: a cell has made names of others since then.
        any_computed: a cell has read a file whose name it computes; a function that does may be called later.
    """

    images: Sequence[Encoded] = ()
    folder: str = ""
    most_bytes: int = 0
    pending: dict[str, int] = field(default_factory=dict)
    any_named: bool = False
    any_derived: bool = False
    any_computed: bool = False

    @classmethod
    def of(cls, images: Sequence[Encoded], folder: str, most_bytes: int) -> OfferedFiles:
        """Returns `input_image.png` and `.jpg` for the first image, and `input_image_0.png`, ... for each."""
        first = {"input_image.png": 0, "input_image.jpg": 0} if images else {}
        each = {f"input_image_{index}.png": index for index in range(len(images))}
        return cls(images, folder, most_bytes, first | each)

    @property
    def directory(self) -> Path:
        return Path(self.folder)

    def provide(self, code: str) -> None:
        """Writes the files that a cell may read. One that is there already stays as it is.

        A file that finds no room is left for later where the session itself uses the room up, or where the cell is not
        known to read it.

        Raises:
            NoRoom: others use the container's file space up; nothing half-written is left.
        """
        if not self.pending:
            return
        found = _FileUse.of(code, self.pending)
        everything = self._wants_everything(found)
        writer = _Writer(self.images, self.directory)
        for name in [name for name in self.pending if everything or name in found.named]:
            try:
                done = writer.write(name, self.pending[name])
            except NoRoom:
                # Silence would make a cell fail for want of a file that it was promised.
                if (name in found.named or found.computes) and not fills_it(self.directory):
                    raise
                return
            if done:
                del self.pending[name]

    def _wants_everything(self, found: _FileUse) -> bool:
        self.any_computed = self.any_computed or found.computes
        named_before, self.any_named = self.any_named, self.any_named or bool(found.named)
        self.any_derived = self.any_derived or (self.any_named and found.derives)
        # A computed name may be of any file, unless a name was given from which it is made.
        unknown = found.computes and not (named_before or found.named)
        # A function that computes names may be called by a later cell, which then derives one.
        return found.lists or unknown or (self.any_computed and self.any_derived)


@dataclass(frozen=True)
class _FileUse:
    """Files that a cell may read.

    Attributes:
        named: those it names.
        lists: it lists folders, so all.
        computes: it reads files whose names it computes.
        derives: it makes names of other names.
    """

    named: tuple[str, ...] = ()
    lists: bool = False
    computes: bool = False
    derives: bool = False

    @classmethod
    def of(cls, code: str, names: dict[str, int]) -> _FileUse:
        """Analyses a cell; one that is no Python reads nothing, as it does not run."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the cell is parsed again when it runs, and warns then
            try:
                tree, _ = source.parse(code, "<cell>")
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                return cls()
            nodes, reaches = _with_code_in_strings(tree)
        strings, mentioned = list(_strings(nodes)), _mentioned(nodes)
        return cls(
            tuple(name for name in names if any(name in text for text in strings)),
            reaches or bool(mentioned & _LISTS) or any(_is_part_of_name(text, names) for text in strings),
            bool(mentioned & _READS) and bool(_given_elsewhere(nodes) & _READS),
            bool(mentioned & _DERIVES) or any(_ENDING.fullmatch(text) for text in strings),
        )


def _with_code_in_strings(tree: ast.Module) -> tuple[list[ast.AST], bool]:
    """Returns the nodes of a cell and of code in its strings, and true where a string that is no code may reach files.

    Such code is a module that the cell writes. Part of one, a line that is written by itself, does not parse.
    """
    nodes = list(ast.walk(tree))
    reaches = False
    for text in list(_strings(nodes)):
        # One line is a message or a name far more often than a module.
        if "\n" not in text:
            continue
        try:
            nodes += ast.walk(ast.parse(text))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            reaches = reaches or not (_LISTS | _READS).isdisjoint(_WORD.findall(text))
    return nodes, reaches


def _strings(nodes: list[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str):
                yield node.value
            elif isinstance(node.value, bytes):
                yield node.value.decode("latin-1")


def _is_part_of_name(text: str, names: dict[str, int]) -> bool:
    """Returns true for the beginning of a file's name, or a pattern for one."""
    last = text.rpartition("/")[2]
    if len(last) < _SHORTEST_PIECE or last in names:
        return False
    beginning = _PATTERN.split(last, maxsplit=1)[0]
    is_pattern = beginning != last and len(beginning) >= _SHORTEST_PIECE
    return any(name.startswith(beginning if is_pattern else last) for name in names)


def _mentioned(nodes: list[ast.AST]) -> set[str]:
    """Returns the last parts of the dotted names among these nodes."""
    return {name for node in nodes for name in _names(node)}


def _given_elsewhere(nodes: list[ast.AST]) -> set[str]:
    """Returns `_mentioned` without calls whose first argument is plain text, or a file in memory."""
    literal = {
        id(node.func) for node in nodes if isinstance(node, ast.Call) and node.args and _is_literal(node.args[0])
    }
    return _mentioned([node for node in nodes if id(node) not in literal])


def _is_literal(argument: ast.expr) -> bool:
    if isinstance(argument, ast.Call):
        return bool(_IN_MEMORY & set(_names(argument.func)))
    return isinstance(argument, ast.Constant) and isinstance(argument.value, str | bytes)


def _names(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name) | ast.keyword(arg=str(name)):
            yield name
        case ast.Import():  # what uses the module names it again, but for one with another name
            yield from (part for alias in node.names if alias.asname for part in alias.name.split("."))
        case ast.ImportFrom():
            yield from (part for alias in node.names for part in alias.name.split("."))
            yield from (node.module or "").split(".")


class _Writer:
    """Writer of files of `images` to `directory`; decodes an image once for files that follow one another."""

    def __init__(self, images: Sequence[Encoded], directory: Path) -> None:
        self._images, self._directory = images, directory
        self._number = -1
        self._rgb: Any = None
        self._png: Path | None = None

    def write(self, name: str, number: int) -> bool:
        """Writes one, unless it exists; false where it may succeed later.

        A file larger than a file here, or a side of a JPEG, may be is left out for good. Raises `NoRoom`.
        """
        path = self._directory / name
        if os.path.lexists(path):
            return True
        put = self._putter(number, "JPEG" if name.endswith(".jpg") else "PNG")
        partial = self._directory / f".{name}"  # this process may be killed at any time
        try:
            with partial.open("wb") as file:
                put(file)
            # Whole or not at all.
            partial.rename(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            if lacking(error) == FILES:
                raise NoRoom(FILES) from None
            return error.errno in (None, errno.EFBIG)
        if name.endswith(".png") and number == self._number:
            self._png = path
        return True

    def _putter(self, number: int, form: str) -> Callable[[Any], object]:
        """Returns a writer of an image to an open file: of its bytes as given where those are of that format."""
        image = self._images[number]
        if form == image.form:
            return lambda file: file.write(image.data)
        if number != self._number:
            self._decode(number)
        if form == "JPEG":
            return lambda file: file.write(_jpeg(self._rgb))
        if (written := self._png) is not None:
            return lambda file: _copy(written, file)
        return lambda file: png.write(self._rgb, file)

    def _decode(self, number: int) -> None:
        self._rgb, self._png = None, None  # of the last image: two are not held at once
        self._rgb = decode(self._images[number].data).rgb
        self._number = number


def _copy(path: Path, file: Any) -> None:
    with path.open("rb") as written:
        shutil.copyfileobj(written, file)


def _jpeg(image: Any) -> bytes:
    """Encodes in memory: an encoder that writes to a file itself hides why it could not."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()
