"""Rows of published files: parquet, JSON lines, JSON, tab-separated, with their images as references."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codedance_verl.data.fields import BadRow
from codedance_verl.data.json_lines import json_lines
from codedance_verl.data.parquet import batches, open_parquet
from codedance_verl.data.reading import python_rows
from codedance_verl.errors import UserError
from codedance_verl.tasks.item import ImageReference, Item
from codedance_verl.tasks.references import ImageFile, NoImage, ParquetImage, TsvImage
from codedance_verl.tasks.task import Layout
from codedance_verl.tasks.tsv import records

# Columns that hold images in the published files, and are not read with the rest of a row.
IMAGE_COLUMNS = ("image", "decoded_image", "image_path")

# Bytes of a JSON file that is read whole, at most; larger ones hold images.
MAX_JSON_BYTES = 256 << 20

# Characters of an image cell that names the row whose image it shares, at most (VLMEvalKit).
_SHARED = 64


@dataclass(frozen=True)
class Row:
    """Row of a file by its number from 0. `values` has its plain columns, `stored` its images.

    `fault` says why a row has no values; empty for one that could be read.
    """

    path: Path
    number: int
    values: Mapping[str, Any]
    stored: Mapping[str, ImageReference] = field(default_factory=dict)
    fault: str = ""

    @property
    def where(self) -> str:
        return f"{self.path.name} row {self.number}"

    def text(self, column: str) -> str:
        """Text of a column, numbers as text. Raises BadRow where there is none."""
        value = self.values.get(column)
        # a value unlike itself is NaN, which tables have for empty cells
        if value is None or isinstance(value, list | dict | bytes) or value != value or not str(value).strip():
            raise BadRow(f"{column} is missing or empty")
        return str(value)

    def optional(self, column: str) -> str:
        """Text of a column, empty where there is none."""
        try:
            return self.text(column)
        except BadRow:
            return ""

    def image(self, column: str = "image", folder: str = "") -> ImageReference:
        """Image of a column: the stored one, or the file that it names, relative to the file's folder or `folder`."""
        if column in self.stored:
            return self.stored[column]
        if name := self.optional(column):
            return ImageFile(self.path.parent / folder / name, self.where)
        return NoImage(self.where, "it has no image")


# Reads one row. Raises BadRow where it is no item.
Convert = Callable[[Row], Item]


def table(name: str, pattern: str, columns: Collection[str], convert: Convert) -> Layout:
    """Layout of files whose rows are items: those of a name that matches `pattern`, with all of the columns.

    `pattern` is a shell pattern of the path below the folder, `**` for folders of any depth. A row that is no item
    becomes one with its fault.
    """

    def find(folder: Path) -> tuple[Path, ...]:
        found = sorted(path for path in folder.glob(pattern) if path.is_file())
        # layouts of one benchmark share patterns: columns tell them apart
        return tuple(path for path in found if set(columns) <= columns_of(path))

    def items(files: tuple[Path, ...]) -> Iterator[Item]:
        return (converted(row, convert) for path in files for row in rows(path))

    return Layout(name, find, items)


def converted(row: Row, convert: Convert) -> Item:
    """Item of a row, or one with its fault."""
    try:
        if row.fault:
            raise BadRow(row.fault)
        return convert(row)
    except BadRow as fault:
        name = f"{row.path.stem}:{row.number}"
        return Item(id=name, question="", images=(), truth=None, fault=f"{row.where}: {fault}")


def rows(path: Path) -> Iterator[Row]:
    """Rows of a file in order, in bounded memory but for JSON. Raises UserError where it is no such file."""
    return _READERS[path.suffix.lower()](path)


def columns_of(path: Path) -> frozenset[str]:
    """Names of a file's columns, of JSON those of its first record; none for a file of another kind."""
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return frozenset(open_parquet(path).schema_arrow.names)
    if suffix == ".tsv":
        return frozenset(_header(path))
    first = next(rows(path), None) if suffix in _READERS else None
    return frozenset() if first is None else frozenset(first.values)


def _parquet_rows(path: Path) -> Iterator[Row]:
    parquet = open_parquet(path)
    names = parquet.schema_arrow.names
    images = [name for name in IMAGE_COLUMNS if name in names and not _is_path(parquet.schema_arrow.field(name), names)]
    plain = [name for name in names if name not in images]
    found = (values for batch in batches(path, parquet, plain) for values in python_rows(batch))
    if not plain:  # to `batches`, no name at all means all columns
        found = ({} for _ in range(parquet.metadata.num_rows))
    for number, values in enumerate(found):
        stored = {name: ParquetImage(path, number, name) for name in images}
        if isinstance(values, BadRow):
            yield Row(path, number, {}, stored, str(values))
        else:
            yield Row(path, number, values, stored)


def _is_path(column: Any, names: list[str]) -> bool:
    """True for a column of paths beside one that holds the images."""
    return column.name != "decoded_image" and "decoded_image" in names


def _tsv_rows(path: Path) -> Iterator[Row]:
    header = _header(path)
    images = {name: header.index(name) for name in IMAGE_COLUMNS if name in header}
    starts: dict[str, TsvImage] = {}  # of images by the index of their row, as later rows may share them
    for number, record in enumerate(records(path), start=-1):  # the header is -1, so that rows count from 0
        if number < 0:
            continue
        cells = record.cells
        values = {
            name: cell.decode("utf-8", "replace")
            for name, cell in zip(header, cells, strict=False)
            if name not in images
        }
        stored: dict[str, ImageReference] = {}
        for name, place in images.items():
            cell = cells[place] if place < len(cells) else b""
            if len(cell) < _SHARED and (key := cell.decode("utf-8", "replace").strip()) in starts:
                stored[name] = starts[key]
            else:
                own = TsvImage(path, number, record.start, record.length, place)
                stored[name] = starts[values.get("index", str(number))] = own
        yield Row(path, number, values, stored)


def _header(path: Path) -> list[str]:
    first = next(records(path), None)
    # a byte order mark would be part of the first name
    return [] if first is None else [cell.decode("utf-8-sig", "replace") for cell in first.cells]


def _json_line_rows(path: Path) -> Iterator[Row]:
    for number, found in json_lines(path):
        if isinstance(found, BadRow):
            raise UserError(f"{path} line {number}: {found}; download the file again")
        yield Row(path, number, found)


def _json_rows(path: Path) -> Iterator[Row]:
    """Records of a list, or of a mapping by key, which becomes the column `key`; one of plain values is one record."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise UserError(f"{path} has more than {MAX_JSON_BYTES >> 20} MiB; name the form with images beside it")
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is no readable JSON file ({error})") from None
    if isinstance(found, dict):
        nested = bool(found) and all(isinstance(value, dict) for value in found.values())
        found = [{"key": key, **value} for key, value in found.items()] if nested else [found]
    for number, record in enumerate(found if isinstance(found, list) else []):
        yield Row(path, number, _mapping(record, f"{path} record {number}"))


def _mapping(record: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(record, dict):
        raise UserError(f"{where} is no JSON object")
    return record


_READERS: Mapping[str, Callable[[Path], Iterator[Row]]] = {
    ".parquet": _parquet_rows,
    ".tsv": _tsv_rows,
    ".jsonl": _json_line_rows,
    ".json": _json_rows,
}
