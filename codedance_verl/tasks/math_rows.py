"""Parts that converters of the mathematics benchmarks share: lists in text, images beside a file, faults of rows."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from codedance_verl.data.fields import BadRow
from codedance_verl.tasks.figures import Figure, Mark, means_by
from codedance_verl.tasks.item import ImageReference, Item
from codedance_verl.tasks.references import ImageFile
from codedance_verl.tasks.rows import Row
from codedance_verl.tasks.task import Layout

# Characters of a list that is written as text, at most.
MAX_LIST_CHARS = 20_000


def completed(known: Item, row: Row, complete: Callable[[Item], Item]) -> Item:
    """Item that `complete` makes of its known fields; those fields with the fault where the rest is missing.

    A bad row so keeps its id, cluster and strata, and counts in the figures that it belongs to.
    """
    try:
        return complete(known)
    except BadRow as fault:
        return replace(known, fault=f"{row.where}: {fault}")


def list_in(value: Any, name: str) -> list[str]:
    """List of texts in a cell: a list, or the text of one in JSON or Python; empty for none. Raises BadRow."""
    if isinstance(value, str):
        value = _parsed(value.strip(), name)
    if value is None or value != value:  # a number that is none, as tables have for empty cells
        return []
    if not isinstance(value, list | tuple):
        raise BadRow(f"{name} is no list")
    return [str(item) for item in value]


def _parsed(text: str, name: str) -> Any:
    if text.lower() in ("", "none", "nan", "null"):
        return None
    if len(text) > MAX_LIST_CHARS:
        raise BadRow(f"{name} has more than {MAX_LIST_CHARS} characters")
    try:
        return json.loads(text)  # both forms: `true` is no Python, single quotes are no JSON
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):  # text nested too deeply may raise the last two
        raise BadRow(f"{name} is text that is no list") from None


def mapping_in(value: Any) -> Mapping[str, Any]:
    """Mapping in a cell, or in its text in JSON or Python; empty for anything else."""
    try:
        found = _parsed(value.strip(), "") if isinstance(value, str) else value
    except BadRow:  # such metadata is no reason to lose the item
        return {}
    return found if isinstance(found, Mapping) else {}


def image_near(row: Row, column: str, *folders: str) -> ImageReference:
    """Image of a row: the stored one, or the file that it names.

    That is relative to the folder of the row's file, to `folders` there, or to the folder above; the first that exists
    is taken, and the first of all where none does.
    """
    if column in row.stored or not (name := row.optional(column)):
        return row.image(column)
    parent = row.path.parent
    places = [parent / name, *(parent / folder / name for folder in folders), parent.parent / name]
    return ImageFile(next((place for place in places if place.is_file()), places[0]), row.where)


def files_that(layout: Layout, keep: Callable[[str], bool]) -> Layout:
    """Layout that finds only the files whose names are to be kept."""

    def find(folder: Path) -> tuple[Path, ...]:
        return tuple(path for path in layout.find(folder) if keep(path.name))

    return replace(layout, find=find)


def items_that(layout: Layout, keep: Callable[[Item], bool]) -> Layout:
    """Layout with only the items that are to be kept."""

    def items(files: tuple[Path, ...]) -> Iterator[Item]:
        return filter(keep, layout.items(files))

    return replace(layout, items=items)


def parts(marks: Sequence[Mark], *strata: str) -> tuple[Figure, ...]:
    """Mean for each value of each stratum, as `stratum: value`; rows that are no item are in none of them."""
    return tuple(
        replace(figure, name=f"{stratum}: {figure.name}")
        for stratum in strata
        for figure in means_by(marks, stratum)
        if figure.name
    )
