"""Converters as declarative maps: columns of a published file, their types, and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from codedance_verl.data.fields import BadRow
from codedance_verl.data.parquet import open_parquet
from codedance_verl.data.rows import Kind
from codedance_verl.datasets.column_types import ColumnType
from codedance_verl.datasets.pieces import JSON, pieces_of, raw_rows
from codedance_verl.errors import UserError
from codedance_verl.types import IMAGE_PLACEHOLDER

_JSON_SAMPLE = 100
_UNFORESEEN = (TypeError, ValueError, AttributeError, LookupError, ArithmeticError)  # of values of published files


class MissingImage(BadRow):
    """Fault of a sound row whose image is not on this machine; its text is the line of the list of missing ones."""


@dataclass(frozen=True)
class Field:
    """Column of a published file and what becomes of it.

    Attributes:
        column: dotted name, `reward_model.ground_truth`.
        type: what it must hold.
        target: name under which `build` gets the value.
        transform: makes the value; raises BadRow. Not called for None, which an optional column may hold.
        required: False for a column that a file may lack and a row leave empty.
        may_be_empty: whether a row may leave a required column empty.
    """

    column: str
    type: ColumnType
    target: str
    transform: Callable[[Any], Any] = lambda value: value
    required: bool = True
    may_be_empty: bool = False


Values = Mapping[str, Any]

Build = Callable[[Values], Mapping[str, Any]]
"""Makes a record in the published layout of CodeDance from the values of the fields. Raises BadRow."""


@dataclass(frozen=True)
class Form:
    """One published form of a set.

    Attributes:
        name: what it is called in messages.
        fields: columns that are read.
        build: makes the record.
        never: columns that no file of this form has.
        taken_for_another: columns of files of other sets in the same layout; with one of them a file is of this form
            only where the set is named.
    """

    name: str
    fields: tuple[Field, ...]
    build: Build
    never: tuple[str, ...] = ()
    taken_for_another: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Dotted names of the columns that are read."""
        return tuple(item.column for item in self.fields)

    def record(self, row: Mapping[str, Any], typed: bool = True) -> Mapping[str, Any]:
        """Record of a row. Without `typed` the types of its values are looked at too, as JSON has any in any row.

        Raises BadRow: a value is missing, is of another type, or has a form that nobody foresaw.
        """
        values = {item.target: _value(row, item, typed) for item in self.fields}
        try:
            return self.build(values)
        except _UNFORESEEN as error:
            raise BadRow(f"its {', '.join(self.columns)} do not go together ({_named(error)})") from None


@dataclass(frozen=True)
class Converter:
    """Converter of one published set.

    Attributes:
        name: as the command takes it.
        title: the set, by its name on the hub.
        kind: what its records are.
        forms: its published forms.
        rows_seen: whether a row of the published file was read when it was written; False where types and examples
            come from the card of the set and from code of others.
        needs_folder: whether images lie in a folder beside the file, found by the SHA-256 that the file states.
    """

    name: str
    title: str
    kind: Kind
    forms: tuple[Form, ...]
    rows_seen: bool = False
    needs_folder: bool = False
    notes: tuple[str, ...] = field(default=())


def schema_of(path: Path) -> pa.Schema:
    """Schema of a file; of a JSON file that of its first rows. Raises UserError where it cannot be read."""
    if path.suffix.lower() not in JSON:
        return open_parquet(path).schema_arrow
    (piece,) = pieces_of([path])
    first = [row for _, (_, row) in zip(range(_JSON_SAMPLE), raw_rows(piece), strict=False) if isinstance(row, dict)]
    names = dict.fromkeys(name for row in first for name in row)
    return pa.schema([(name, _inferred([row.get(name) for row in first])) for name in names])


def differences(schema: pa.Schema, form: Form, named: bool = True) -> tuple[str, ...]:
    """What a file lacks or has otherwise than a form, all at once; empty where it is of that form.

    `named`: whether the user says which set it is.
    """
    return tuple(_differences(schema, form, named))


def find_form(path: Path, converters: Sequence[Converter]) -> tuple[Converter, Form]:
    """Converter and form of a file: the one with the most required columns of those that it matches.

    Raises UserError: none does (all differences to the nearest are named), or several do equally.
    """
    schema = schema_of(path)
    named = len(converters) == 1
    found = [
        (converter, form, differences(schema, form, named)) for converter in converters for form in converter.forms
    ]
    fitting = [
        (sum(item.required for item in form.fields), converter, form) for converter, form, wrong in found if not wrong
    ]
    if not fitting:
        converter, form, wrong = min(found, key=lambda item: (len(item[2]) / len(item[1].fields), len(item[2])))
        known = f"nearest is {converter.name}, {form.name}" if len(found) > 1 else f"{converter.name}, {form.name}"
        lines = "; ".join(wrong)
        raise UserError(f"{path.name} is in no known layout ({known}, {len(wrong)} differences): {lines}")
    most = max(count for count, _, _ in fitting)
    best = [(converter, form) for count, converter, form in fitting if count == most]
    if len({converter.name for converter, _ in best}) > 1:
        names = ", ".join(converter.name for converter, _ in best)
        raise UserError(f"{path.name} may be any of {names}; say which with --from")
    return best[0]


def question_record(
    data_source: str,
    question: str,
    images: Sequence[Any],
    truth: Any,
    *,
    ability: str = "",
    style: str | None = None,
    **extra_info: Any,
) -> dict[str, Any]:
    """Record of a question in one user message, its images before it. Raises BadRow where the question is empty."""
    question = question.replace(IMAGE_PLACEHOLDER, "").strip()
    if not question:
        raise BadRow("its question is empty")
    content = f"{IMAGE_PLACEHOLDER}\n" * len(images) + question
    return {
        "data_source": data_source,
        "prompt": [{"role": "user", "content": content}],
        "images": list(images),
        "ability": ability,
        "reward_model": {"style": style, "ground_truth": truth},
        "extra_info": {"question": question, **extra_info},
    }


def _differences(schema: pa.Schema, form: Form, named: bool) -> Iterator[str]:
    for column in form.never:
        if _has(schema, column):
            yield f"it has a column {column}"
    for column in () if named else form.taken_for_another:
        if _has(schema, column):
            yield f"it has a column {column}, as files of other sets have; if it is of this one, name it with --from"
    for item in form.fields:
        names = item.column.split(".")
        found = _type_at(schema, names)
        if found is None:
            if item.required:
                yield f"it has no column {item.column} ({item.type.name})"
        elif not item.type.holds(found) and not pa.types.is_null(found):  # of nothing but nulls: rows tell
            yield f"column {item.column} is {_short(found)}, not {item.type.name}"


def _has(schema: pa.Schema, column: str) -> bool:
    found = _type_at(schema, column.split("."))
    return found is not None and not pa.types.is_null(found)


def _type_at(schema: pa.Schema, names: Sequence[str]) -> pa.DataType | None:
    if schema.names.count(names[0]) != 1:
        return None
    found = schema.field(names[0]).type
    for name in names[1:]:
        if pa.types.is_null(found):
            return found
        place = found.get_field_index(name) if pa.types.is_struct(found) else -1
        if place < 0:
            return None
        found = found.field(place).type
    return found


def _value(row: Mapping[str, Any], item: Field, typed: bool) -> Any:
    found: Any = row
    for name in item.column.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    if found is None or found == "":
        if item.required and not item.may_be_empty:
            raise BadRow(f"{item.column} is missing or empty")
        return None
    if not typed and not item.type.holds(kind := _inferred([found])):
        raise BadRow(
            f"{item.column} is {_short(kind) if kind != pa.null() else 'of mixed types'}, not {item.type.name}"
        )
    try:
        return item.transform(found)
    except _UNFORESEEN as error:
        raise BadRow(f"{item.column} is not as it is published ({_named(error)})") from None


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {_short(str(error))}"


def _inferred(values: Sequence[Any]) -> pa.DataType:
    try:
        return pa.array(values).type
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        return pa.null()  # of several types: rows tell which is wrong


def _short(kind: object) -> str:
    text = str(kind)
    return text if len(text) <= 80 else f"{text[:80]}…"
