"""Base of the configuration nodes: type, range, default and description of a key stand in its field alone."""

from __future__ import annotations

import copy
import json
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, ClassVar, Self

from omegaconf import OmegaConf
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import core_schema

from codedance_verl.config.renamed import renamed_line
from codedance_verl.errors import UserError

_MAX_VALUE_CHARS = 200


@dataclass(frozen=True)
class Fault:
    """A wrong setting: its dotted key, and the line that names key, value and what is allowed."""

    key: str
    line: str


class SettingsError(UserError):
    """All faults of a node."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("\n".join(fault.line for fault in faults))
        self.faults = tuple(faults)

    def __reduce__(self) -> tuple[type[SettingsError], tuple[tuple[Fault, ...]]]:
        return type(self), (self.faults,)  # Ray pickles errors; the default would pass the message for the faults


class KeyFault(ValueError):
    """Fault of one key, found by a validator of a whole node, or of an item below a field.

    Args:
        key: dotted, below the node or field that is validated.
        value: the value seen; `NO_VALUE` where it does not matter.
        text: the rest of the line, such as "must be at least 4".
    """

    def __init__(self, key: str, value: object, text: str) -> None:
        super().__init__(text)
        self.key, self.value = key, value


NO_VALUE = object()


@dataclass(frozen=True)
class Allowed:
    """Words for what a field takes, in `Annotated`, where its type and range do not say it: "a list of URLs"."""

    text: str


def null_as(empty: Any) -> BeforeValidator:
    """Validator, in `Annotated`, of a key that may be null in files so that it can be set whole."""
    return BeforeValidator(lambda value: empty if value is None else value)


class OneOf:
    """Choice of texts that is known at run time only, in `Annotated[str, OneOf(names)]`; else `Literal` does."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.literal_schema(list(self.names))


@dataclass(frozen=True)
class Null:
    """Effect of null, in `Annotated`, where the type alone does not say it: "to size it by the images"."""

    effect: str


class Value:
    """Check of a single value of verl's tree, which has no node of ours.

    Args:
        annotation: a type, `Literal`, or one that `whole`, `real` and `one_of` make.
    """

    def __init__(self, annotation: Any) -> None:
        self._field = FieldInfo.from_annotation(annotation)
        self._adapter: TypeAdapter[Any] = TypeAdapter(annotation, config=ConfigDict(strict=True))

    def fault(self, value: object, key: str) -> Fault | None:
        """Fault of the value at a dotted key; None where it is allowed."""
        try:
            self._adapter.validate_python(value)
        except ValidationError:
            return Fault(key, _line(key, value, f"must be {allowed(self._field)}"))
        return None

    def check(self, value: object, key: str) -> None:
        """Raises `SettingsError` for a value that is not allowed."""
        if fault := self.fault(value, key):
            raise SettingsError([fault])


def whole(low: int, high: int, optional: bool = False) -> Value:
    """Check of a whole number from `low` to `high`; `optional`: or null."""
    return Value(Annotated[int | None if optional else int, Field(ge=low, le=high)])


def real(low: float, high: float) -> Value:
    """Check of a number from `low` to `high`."""
    return Value(Annotated[float, Field(ge=low, le=high)])


def one_of(names: Iterable[str]) -> Value:
    """Check of a text that is one of these."""
    return Value(Annotated[str, OneOf(names)])


class Node(BaseModel):
    """Frozen node of the configuration tree.

    A field is written `name: type = Field(default, ge=..., le=...)` with its description as a docstring below it.
    Validators raise `ValueError("must be ...")` about their field, or `KeyFault` about another key.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True, arbitrary_types_allowed=True
    )

    KEY: ClassVar[str] = ""
    """Dotted key of the node in the configuration."""

    @classmethod
    def from_mapping(cls, values: Any, key: str | None = None) -> Self:
        """Builds the node from the values at the dotted key `key`; absent keys take their default.

        Args:
            values: a mapping, resolved or of OmegaConf.
            key: `KEY` where it is None.

        Raises:
            SettingsError: has a line for every fault, with dotted key, value and what is allowed.
        """
        key = cls.KEY if key is None else key
        if OmegaConf.is_config(values):
            values = OmegaConf.to_container(values, resolve=True)
        if not isinstance(values, Mapping):
            raise SettingsError([_fault_of_kind(key, values)])
        faults: list[Fault] = []
        rest = dict(values)
        while True:
            try:
                # Strict validation of Python values takes no list for a tuple and no text for a member of an
                # enumeration; that of JSON does, and configurations have nothing that JSON has not.
                node = cls.model_validate_json(json.dumps(rest, default=str))
                break
            except ValidationError as error:
                if not faults:  # the caller's own nodes stay as they are
                    rest = copy.deepcopy(rest)
                faults += faults_of(error, cls, key, rest)
                # Checks of a whole node follow those of its fields, and the first that fails hides the next: without
                # the faulty keys the others run too.
                if not _remove(rest, [_place(found, cls) for found in error.errors(include_url=False)]):
                    break
        if faults:
            raise SettingsError(list({fault.line: fault for fault in faults}.values()))
        return node

    def replace(self, **changes: Any) -> Self:
        """Returns a checked copy with other values. Raises `SettingsError`."""
        return self.from_mapping({**self.model_dump(mode="json"), **changes})


def _place(found: Any, node: type[Node]) -> list[str]:
    """Keys on the way to the field that an error of pydantic is about, or to the key that a check of the node names."""
    cause = found.get("ctx", {}).get("error")
    named = cause.key.split(".") if isinstance(cause, KeyFault) and cause.key else []
    return _walk(node, found["loc"])[0] or named


def _remove(values: dict[str, Any], places: Iterable[Sequence[str]]) -> bool:
    """Deletes each place, or what is there on the way to it; returns True where any was there."""
    removed = False
    for place in places:
        holder: Any = values
        for name in place[:-1]:
            holder = holder.get(name) if isinstance(holder, dict) else None
        if place and isinstance(holder, dict) and place[-1] in holder:
            del holder[place[-1]]
            removed = True
        elif place and place[0] in values:
            del values[place[0]]
            removed = True
    return removed


def faults_of(error: ValidationError, node: type[Node], key: str, values: Any) -> list[Fault]:
    """Faults that pydantic found in `values`, which stand at the dotted key `key`."""
    faults = (_fault(found, node, key, values) for found in error.errors(include_url=False))
    return list({fault.line: fault for fault in faults}.values())  # members of a union may find the same


def known_keys(node: type[Node]) -> str:
    """Keys of a node, for the line about an unknown one."""
    return ", ".join(node.model_fields)


def allowed(field: FieldInfo) -> str:
    """Words for the values that a field takes, such as "a whole number from 1 to 100, or null"."""
    said = [item.text for item in field.metadata if isinstance(item, Allowed)]
    said += [f"one of {', '.join(item.names)}" for item in field.metadata if isinstance(item, OneOf)]
    inner, optional = _without_none(field.annotation)
    words = said[0] if said else _words(inner) + _range(field, inner)
    effects = [f" {item.effect}" for item in field.metadata if isinstance(item, Null)]
    return f"{words}, or null{''.join(effects)}" if optional and "null" not in words else words


def shown(value: object) -> str:
    """A value as messages show it: cut, on one line."""
    return " ".join(str(value).split())[:_MAX_VALUE_CHARS]


def bounds(field: FieldInfo) -> tuple[Any, Any]:
    """Least and largest value of a number, None where there is none; the bounds themselves are allowed."""
    low = next((item.ge for item in field.metadata if hasattr(item, "ge")), None)
    high = next((item.le for item in field.metadata if hasattr(item, "le")), None)
    return low, high


def _fault(found: Any, node: type[Node], key: str, values: Any) -> Fault:
    """One error of pydantic with our dotted key and our words."""
    path, owner, field = _walk(node, found["loc"])
    dotted = ".".join((key, *path) if key else path)  # the settings of a run stand at the root
    value = found["input"]
    if found["type"] == "extra_forbidden":
        line = renamed_line(dotted) or f"{dotted}: unknown key; known are {known_keys(owner)}"
        return Fault(dotted, line)
    cause = found.get("ctx", {}).get("error")
    if isinstance(cause, KeyFault):
        dotted = f"{dotted}.{cause.key}" if cause.key else dotted
        return Fault(dotted, f"{dotted}: {cause}" if cause.value is NO_VALUE else _line(dotted, cause.value, cause))
    if isinstance(cause, ValueError):
        return Fault(dotted, _line(dotted, value, cause))
    if field is None:
        return _fault_of_kind(dotted, value, owner)
    if any(isinstance(item, int) for item in found["loc"]) and found["type"] not in ("enum", "literal_error"):
        value = _at(values, path)  # an item of the wrong type: the list shows it best
    return Fault(dotted, _line(dotted, value, f"must be {allowed(field)}"))


def _fault_of_kind(dotted: str, value: object, node: type[Node] | None = None) -> Fault:
    cure = f"known are {known_keys(node)}" if node else f"its keys are set one by one, as {dotted}.KEY=VALUE"
    return Fault(dotted, _line(dotted, value, f"must be a mapping; {cure}"))


def _line(dotted: str, value: object, text: object) -> str:
    return f"{dotted}={shown(value)}: {text}"


def _walk(node: type[Node], loc: Sequence[int | str]) -> tuple[list[str], type[Node], FieldInfo | None]:
    """Keys on the way to an error, the last node on it, and the field of that node.

    The field is None where the error is about the node itself. Indices of lists and the names of members of a union,
    which pydantic puts into the way, are left out.
    """
    path: list[str] = []
    owner, field = node, None
    inside: Any = node
    for item in loc:
        if isinstance(inside, type) and issubclass(inside, Node):
            owner, field = inside, inside.model_fields.get(str(item))
            path.append(str(item))
            inside = _without_none(field.annotation)[0] if field else None
        elif typing.get_origin(inside) in (typing.Union, types.UnionType):
            inside = _member(inside, str(item))
        elif (typing.get_origin(inside) or inside) in (Mapping, dict):
            path.append(str(item))
            inside = typing.get_args(inside)[1]
        # else: the index of an item in a list
        if isinstance(inside, type) and issubclass(inside, Node):
            owner, field = inside, None
    return path, owner, field


def _member(union: Any, name: str) -> Any:
    """Member of a union that pydantic calls so: by its class, or by the value of the key that tells members apart."""
    for member in typing.get_args(union):
        if not (isinstance(member, type) and issubclass(member, Node)):
            continue
        tags = [tag for field in member.model_fields.values() for tag in typing.get_args(field.annotation)]
        if member.__name__ == name or name in map(str, tags):
            return member
    return None


def _at(values: Any, path: Sequence[str]) -> Any:
    for name in path:
        values = values.get(name) if isinstance(values, Mapping) else None
    return values


def _without_none(annotation: Any) -> tuple[Any, bool]:
    """An annotation without `None`, and whether it had it."""
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return annotation, False
    members = [item for item in typing.get_args(annotation) if item is not types.NoneType]
    optional = len(members) < len(typing.get_args(annotation))
    return (members[0] if len(members) == 1 else annotation), optional


def _words(annotation: Any) -> str:
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _words(typing.get_args(annotation)[0])
    if origin is typing.Literal:
        return f"one of {', '.join(map(str, typing.get_args(annotation)))}"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return f"one of {', '.join(str(item.value) for item in annotation)}"
    if origin in (tuple, list):
        item = typing.get_args(annotation)[0]
        return "a list of texts, such as [a, b] or []" if item is str else f"a list of {_words(item)}"
    return _SCALARS.get(annotation, "a mapping")


_SCALARS: dict[Any, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def _range(field: FieldInfo, annotation: Any) -> str:
    low, high = bounds(field)
    if annotation not in (int, float) or low is high is None:
        return ""
    show = str if annotation is int else "{:g}".format
    if high is None:
        return f" of at least {show(low)}"
    return f" up to {show(high)}" if low is None else f" from {show(low)} to {show(high)}"
