"""Places of encoded images: files, cells of parquet files, cells of tab-separated files."""

from __future__ import annotations

import base64
import binascii
import functools
import itertools
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from codedance_verl.data.fields import BadRow, read_source, source_of
from codedance_verl.data.parquet import batches, open_parquet
from codedance_verl.errors import UserError
from codedance_verl.images import decode
from codedance_verl.tasks.item import ImageReference, UnreadableImage
from codedance_verl.tasks.tsv import cells_of

# Characters of text from which on a cell holds base64 and no path; shorter text does where it begins like an image.
_LONGEST_PATH = 1_024
_BASE64_OF_IMAGES = ("iVBORw0KGgo", "/9j/", "R0lGODl", "UklGR")  # PNG, JPEG, GIF, WebP

# Parquet columns that stay open for reading on.
_OPEN_COLUMNS = 8


def open_image(reference: ImageReference) -> Image.Image:
    """Decoded image, 8-bit RGB (`images.decode`). Raises UnreadableImage."""
    data = reference.read()
    try:
        return decode(data)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnreadableImage(f"{reference.where}: the image cannot be decoded ({error})") from None


@dataclass(frozen=True)
class ImageFile:
    """Image in a file of its own; `stated_in` is the file and row that name it."""

    path: Path
    stated_in: str

    @property
    def where(self) -> str:
        return f"{self.stated_in}, {self.path.name}"

    def fault(self) -> str:
        return "" if self.path.is_file() else f"{self.stated_in}: there is no image {self.path}"

    def read(self) -> bytes:
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise UnreadableImage(f"{self.stated_in}: {self.path} cannot be read ({error.strerror})") from None


@dataclass(frozen=True)
class ParquetImage:
    """Image in a cell of a parquet file: bytes, a mapping with bytes or a path, or base64 text.

    Rows are cheapest in order: reading a row reads those between it and the last one of its row group.
    """

    path: Path
    row: int
    column: str

    @property
    def where(self) -> str:
        return f"{self.path.name} row {self.row}"

    def fault(self) -> str:
        return ""

    def read(self) -> bytes:
        try:
            value = _open_column(self.path, self.column).cell(self.row)
        except (UserError, pa.ArrowException, OSError, IndexError) as error:
            raise UnreadableImage(f"{self.where}: column {self.column} cannot be read ({error})") from None
        return encoded(value, self.column, self.where, self.path.parent)


@dataclass(frozen=True)
class TsvImage:
    """Image as base64 in a cell of a tab-separated file: cell `cell` of the record at byte `start`, `length` long."""

    path: Path
    row: int
    start: int
    length: int
    cell: int

    @property
    def where(self) -> str:
        return f"{self.path.name} row {self.row}"

    def fault(self) -> str:
        return ""

    def read(self) -> bytes:
        try:
            with self.path.open("rb") as file:
                file.seek(self.start)
                record = file.read(self.length)
            value = cells_of(record)[self.cell].decode("ascii")
        except (OSError, IndexError, ValueError) as error:
            raise UnreadableImage(f"{self.where}: the image cannot be read ({error})") from None
        return encoded(value, "image", self.where, self.path.parent)


@dataclass(frozen=True)
class NoImage:
    """Image that an item should have and that is not there, with the reason."""

    where: str
    reason: str

    def fault(self) -> str:
        return f"{self.where}: {self.reason}"

    def read(self) -> bytes:
        raise UnreadableImage(self.fault())


def encoded(value: Any, column: str, where: str, folder: Path) -> bytes:
    """Encoded image that a cell holds. Raises UnreadableImage."""
    try:
        if isinstance(value, str) and _is_base64(value):
            # some writers break it into lines, which `validate` refuses
            return base64.b64decode("".join(value.split()), validate=True)
        return read_source(source_of(value, column, folder), column)
    except (BadRow, binascii.Error, ValueError) as error:
        fault = error if isinstance(error, BadRow) else f"{column} is damaged base64"
        raise UnreadableImage(f"{where}: {fault}") from None


def _is_base64(text: str) -> bool:
    return text.startswith(_BASE64_OF_IMAGES) or (len(text) >= _LONGEST_PATH and not text.startswith("data:"))


class _Column:
    """Reader of single cells of a parquet column, forward without reading twice."""

    def __init__(self, path: Path, column: str) -> None:
        self._path, self._column = path, column
        self._parquet = open_parquet(path)
        metadata = self._parquet.metadata
        sizes = (metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
        self._ends = tuple(itertools.accumulate(sizes))
        self._lock = threading.Lock()
        self._rest: Iterator[pa.RecordBatch] = iter(())
        self._batch: pa.Array | None = None
        self._first = self._next = 0  # rows of the batch that is held
        self._group = -1

    def cell(self, row: int) -> Any:
        """Value of a row. Raises IndexError where the file has no such row."""
        with self._lock:
            try:
                return self._cell(row)
            except BaseException:
                self._group = -1  # what was begun cannot be read on
                raise

    def _cell(self, row: int) -> Any:
        group = next((number for number, end in enumerate(self._ends) if row < end), None)
        if group is None:
            raise IndexError(f"no row {row}")
        if group != self._group or row < self._first:
            self._rest = batches(self._path, self._parquet, (self._column,), groups=(group,))
            self._group, self._batch = group, None
            self._first = self._next = self._ends[group - 1] if group else 0
        while row >= self._next:
            self._batch = next(self._rest).column(0)
            self._first, self._next = self._next, self._next + len(self._batch)
        assert self._batch is not None
        return self._batch[row - self._first].as_py()


@functools.lru_cache(_OPEN_COLUMNS)
def _open_column(path: Path, column: str) -> _Column:
    return _Column(path, column)
