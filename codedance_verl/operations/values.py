"""Abstract values of an analysis: their kind, and the operations that they derive from."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from codedance_verl.operations.catalogue import PIXEL_DATA, Kind

MOST_ITEMS = 64
"""Most elements of a container that are told apart."""

_MOST_DEPTH = 6
"""Levels of containers within containers that are followed."""

_MOST_PARTS = 1_000
"""Values within a container that are followed."""

_NOTHING: frozenset[int] = frozenset()


class Refs(NamedTuple):
    """Numbers of the operations that a value derives from.

    Attributes:
        data: by data flow.
        plain: by a test of plain values that decided on it.
        chosen: by a test of image values, an index or the bounds of a loop.
    """

    data: frozenset[int] = _NOTHING
    plain: frozenset[int] = _NOTHING
    chosen: frozenset[int] = _NOTHING

    def union(self, other: Refs) -> Refs:
        if other is NO_REFS or other == self:
            return self
        if self is NO_REFS:
            return other
        return Refs(self.data | other.data, self.plain | other.plain, self.chosen | other.chosen)

    @property
    def empty(self) -> bool:
        return not (self.data or self.plain or self.chosen)

    def as_test(self, plain: bool) -> Refs:
        """Refs of what a test with these decides on."""
        if plain:
            return Refs(_NOTHING, self.data | self.plain, self.chosen)
        return Refs(_NOTHING, _NOTHING, self.data | self.plain | self.chosen)


NO_REFS = Refs()

_UNSET = object()


@dataclass(frozen=True, eq=False)
class Function:
    """Function of the code: its parameters, its body, and the scopes that it sees."""

    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
    scopes: tuple[dict[str, Value], ...]
    defaults: tuple[Value, ...]
    keyword_defaults: tuple[Value | None, ...]


@dataclass(eq=False)
class Value:
    """Abstract value. Names that are bound to the same object share it, so that a change of it is seen by both.

    Attributes:
        image: it derives from pixels of an image that was given.
        part: a channel of an image, or a derivative: no picture by itself.
        objects: a container with an element for each object found in an image.
        series: a container of numbers that a rule generates, as a range.
        path: dotted name of a library's module, class, function or object.
        receiver: object that a method is bound to.
        is_class: a class of the code, with its methods among `fields`.
        decorated: `property` or `staticmethod`, for a function below one of these.
        items: elements; `exact` where their places are known.
        fields: entries of a dictionary by constant key, or attributes of an object.
        targets: objects that change when this one does: an image below its pen, an array below its slice.
        options: other values that it may be.
    """

    kind: Kind = Kind.UNKNOWN
    refs: Refs = NO_REFS
    image: bool = False
    part: bool = False
    objects: bool = False
    series: bool = False
    path: str = ""
    const: Any = _UNSET
    receiver: Value | None = None
    function: Function | None = None
    is_class: bool = False
    decorated: str = ""
    items: list[Value] = field(default_factory=list)
    exact: bool = False
    fields: dict[Any, Value] = field(default_factory=dict)
    targets: tuple[Value, ...] = ()
    options: tuple[Value, ...] = ()

    @property
    def is_const(self) -> bool:
        return self.const is not _UNSET

    @property
    def pixels(self) -> bool:
        """True for pixel data, given or drawn."""
        return self.kind in PIXEL_DATA

    @property
    def callable(self) -> bool:
        return bool(self.function or self.options or (self.path and self.kind is Kind.UNKNOWN))

    def under(self, refs: Refs) -> Value:
        """Returns it with further refs; containers stay shared, and changes go on to it."""
        if refs.empty:
            return self
        return replace(self, refs=self.refs.union(refs), targets=(self,))

    def text(self) -> str | None:
        """Its constant text, if it is one."""
        return self.const if self.is_const and isinstance(self.const, str) else None


def constant(value: Any) -> Value:
    """Returns the value of a literal."""
    kind = Kind.STRING if isinstance(value, str) else Kind.NUMBER
    if value is None or value is ... or isinstance(value, bytes):
        kind = Kind.UNKNOWN
    return Value(kind, const=value)


def listed(items: Iterable[Value], exact: bool = True) -> Value:
    """Returns a list of these."""
    kept = list(items)
    return Value(Kind.LIST, items=kept[:MOST_ITEMS], exact=exact and len(kept) <= MOST_ITEMS)


def derived(kind: Kind, *sources: Value, refs: Refs | None = None, **fields: Any) -> Value:
    """Returns a value that derives from others."""
    found = refs if refs is not None else all_refs(*sources)
    image = any(from_image(source) for source in sources)
    return Value(kind, found, image=image, **fields)


def all_refs(*values: Value) -> Refs:
    """Refs of values and of what they contain."""
    data: set[int] = set()
    plain: set[int] = set()
    chosen: set[int] = set()
    for value in values:
        for part in _parts(value):
            if part.refs is not NO_REFS:
                data |= part.refs.data
                plain |= part.refs.plain
                chosen |= part.refs.chosen
    return Refs(frozenset(data), frozenset(plain), frozenset(chosen)) if data or plain or chosen else NO_REFS


def from_image(value: Value) -> bool:
    """True where it or what it contains derives from the pixels of a given image."""
    return any(part.image for part in _parts(value))


def _parts(value: Value) -> Iterator[Value]:
    seen: set[int] = set()
    level = [value]
    for _depth in range(_MOST_DEPTH):
        below: list[Value] = []
        for part in level:
            if id(part) not in seen:
                seen.add(id(part))
                yield part
                below += part.items
                below += part.fields.values()
                below += part.options
                if part.receiver is not None:
                    below.append(part.receiver)
        if not below or len(seen) > _MOST_PARTS:
            return
        level = below


def joined(values: Iterable[Value]) -> Value:
    """Returns a value that may be any of these."""
    # what is the same object on all ways stays that object, for later changes to reach it
    found = list({id(value): value for value in values}.values())
    if not found:
        return Value()
    if len(found) == 1:
        return found[0]
    found = found[:MOST_ITEMS]
    # None mostly stands for what is not there yet: the kind is that of the other ways
    kinds = {value.kind for value in found if not (value.is_const and value.const is None)}
    first = found[0]
    refs = NO_REFS
    for value in found:
        refs = refs.union(value.refs)
    return Value(
        kinds.pop() if len(kinds) == 1 else Kind.UNKNOWN,
        refs,
        image=any(value.image for value in found),
        part=any(value.part for value in found),
        objects=any(value.objects for value in found),
        series=any(value.series for value in found),
        path=first.path if all(value.path == first.path for value in found) else "",
        items=[item for value in found for item in value.items][:MOST_ITEMS],
        fields={key: item for value in found for key, item in value.fields.items()},
        targets=tuple(value for value in found if not value.is_const),
        options=tuple(value for value in found if value.callable),
    )


def element(value: Value) -> Value:
    """Returns any element of a container, as a loop takes it."""
    if value.kind is Kind.SHAPES:
        return derived(Kind.SHAPE, value)
    if value.kind is Kind.DICT:
        keys = [Value(Kind.STRING if isinstance(key, str) else Kind.NUMBER) for key in value.fields]
        return joined(keys).under(value.refs)
    if value.items:
        return joined(value.items).under(value.refs)
    kinds = {
        Kind.PIXELS: Kind.PROFILE,
        Kind.MASK: Kind.PROFILE,
        Kind.PROFILE: Kind.PIXEL,
        Kind.PIXEL: Kind.PIXEL,
        Kind.COORDINATES: Kind.NUMBER,
        Kind.SHAPE: Kind.NUMBER,
        Kind.NUMBER: Kind.NUMBER,
        Kind.SERIES: Kind.NUMBER,
        Kind.STRING: Kind.STRING,
        Kind.FRAME: Kind.FRAME,
        Kind.AXES: Kind.AXES,
    }
    return derived(kinds.get(value.kind, Kind.UNKNOWN), value, targets=(value,))


def axes_at(axes: Value, place: object) -> Value:
    """Axes at a place of several; the same ones each time."""
    if place is None or not axes.targets:
        return axes
    return axes.fields.setdefault(("place", place), Value(Kind.AXES, targets=axes.targets))
