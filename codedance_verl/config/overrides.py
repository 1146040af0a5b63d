"""Overrides of a command line before Hydra reads them: what its grammar refuses is one line that says what to write.

Hydra's own messages show where its lexer stopped. What is meant without doubt is understood instead: a leading `~` is
the home folder, letters of any script need no quotes, and a list that the shell has cut at its spaces is one value.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.errors import HydraException

from codedance_verl.errors import UserError

_KEY = re.compile(r"\+{0,2}[A-Za-z_][\w-]*([./@][\w-]+)*")
_DASHES = ("-", "\N{EN DASH}", "\N{EM DASH}")
_HOME = re.compile(r"""(?P<before>^["']?|[\[,:]\s*["']?)~(?P<user>[a-z_][\w-]*)?(?=/)""")
_SHELL_VARIABLE = re.compile(r"\$(?:\{[A-Z][A-Z0-9_]*\}|[A-Z][A-Z0-9_]*)")
_PLAIN = re.compile(r"[\w/.:+%@*?|\\ -]+")
"""Texts without a sign of Hydra's grammar; letters of any script."""

_GRAMMAR = re.compile(r"""[\w/.:+%@*?|\\ \-$,\[\]{}"']""", re.ASCII)
_PAIRS = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True)
class Mistake:
    """Override that is left out.

    Attributes:
        key: without `+`, empty where it has none.
        line: the reason.
        unknown: there is no such key.
    """

    key: str
    line: str
    unknown: bool = False


@dataclass(frozen=True)
class Overrides:
    """Overrides that Hydra's grammar takes, and what is wrong with the others."""

    good: tuple[str, ...]
    mistakes: tuple[Mistake, ...]


def read_overrides(arguments: Sequence[str]) -> Overrides:
    """Sorts the arguments of a command line into what Hydra can read and mistakes, in their order."""
    good, mistakes = list[str](), list[Mistake]()
    for item in _joined(arguments):
        try:
            good.append(_read(item))
        except UserError as error:
            mistakes.append(Mistake(key_of(item), " ".join(str(error).split())))
    return Overrides(tuple(good), tuple(mistakes))


def key_of(override: str) -> str:
    """The key of an override without `+`, `~` and dashes."""
    return override.split("=", 1)[0].split(" ", 1)[0].lstrip("+~").lstrip("".join(_DASHES))


def _joined(arguments: Sequence[str]) -> list[str]:
    """The arguments, with those put together that the shell has cut at a space inside of what is one override."""
    pieces = [""]
    for item in arguments:
        if pieces[-1] and _goes_on(pieces[-1], item):
            pieces[-1] += f" {item}"
        else:
            pieces.append(item)
    return [piece for piece in pieces if piece]


def _goes_on(piece: str, item: str) -> bool:
    if piece.startswith(_DASHES):  # a flag and its value
        return "=" not in piece and "=" not in item and not item.startswith(_DASHES)
    if item.startswith("="):
        return "=" not in piece
    if piece.endswith("="):
        return "=" not in item
    value = piece.partition("=")[2]
    return value.startswith(("[", "{")) and _open_brackets(value) > 0


def _read(item: str) -> str:
    """The override as Hydra reads it. Raises `UserError` where it cannot be."""
    if item.startswith(_DASHES) and "=" in item:
        raise UserError(f"{item}: overrides have no dashes: {item.lstrip(''.join(_DASHES))}")
    if item.startswith(_DASHES) or ("=" not in item and not item.startswith("~")):
        raise UserError(f"{item}: must be KEY=VALUE; --help says what else there is")
    if item.startswith("~"):
        raise UserError(f"{item}: no key can be left out; give it another value, null for none")
    key, _, value = item.partition("=")
    _check_key(item, key, value)
    _check_value(item, key.lstrip("+"), value)
    return _parsed(item, key, _with_home(item, value))


def _check_key(item: str, key: str, value: str) -> None:
    if key != key.strip() or (value.strip() and value[0].isspace()):
        raise UserError(f"{item}: no spaces around =: {key.strip()}={value.strip()}")
    if key.endswith("]"):
        raise UserError(f"{item}: no element can be set alone; a list is given whole: {key.split('[')[0]}=[...]")
    if not _KEY.fullmatch(key):
        raise UserError(f"{item}: {key or 'what stands before ='} is no key; a key is names with dots between them")
    if key.lstrip("+").startswith(("hydra.", "hydra/")):
        raise UserError(f"{item}: Hydra's own settings have no effect here; run_dir is where a run writes")
    if "@" in key:
        raise UserError(f"{item}: verl's own groups are not to be exchanged; set their keys one by one")


def _check_value(item: str, key: str, value: str) -> None:
    if not value:
        raise UserError(f"{item}: no value given; null is none, and '{key}=\"\"' an empty text")
    if value == "None":
        raise UserError(f"{item}: write {key}=null")
    if value == "~":
        raise UserError(f"{item}: write {key}=null for none, or {key}=$HOME for the home folder")
    if variable := _SHELL_VARIABLE.search(value):
        raise UserError(
            f"{item}: the shell has not filled in {variable.group()}; set it, and use no single quotes around it"
        )
    if value.startswith("="):
        raise UserError(f"{item}: one = is enough: {key}={value.lstrip('= ')}")


def _with_home(item: str, value: str) -> str:
    """The value with `~/` and `~user/` at the beginning of a path replaced."""

    def home(match: re.Match[str]) -> str:
        name = f"~{match['user'] or ''}"
        try:
            return match["before"] + str(Path(name).expanduser())
        except RuntimeError:
            cure = "write the path of the folder"
            raise UserError(f"{item}: {name} is nobody's home folder on this machine; {cure}") from None

    return _HOME.sub(home, value)


def _parsed(item: str, key: str, value: str) -> str:
    override = f"{key}={value}"
    found = _parse(override)
    if found is not None:
        if found.is_sweep_override():
            bare, sweep, cure = key.lstrip("+"), found.value(), ""
            if isinstance(sweep, ChoiceSweep) and sweep.simple_form:
                cure = f"; a list is written {bare}=[{value}], a text with commas '{bare}=\"{value}\"'"
            raise UserError(f"{item}: a run has one value of each key{cure}")
        return override
    quoted = f'{key}="{value}"'
    if _PLAIN.fullmatch(value) and _parse(quoted) is not None:
        return quoted
    raise UserError(_why_not(item, key, value))


@functools.cache
def _parser() -> OverridesParser:
    return OverridesParser.create()


def _parse(override: str) -> Override | None:
    try:
        return _parser().parse_override(override)
    except HydraException:
        return None


def _why_not(item: str, key: str, value: str) -> str:
    """The line for a value that Hydra's grammar does not take."""
    bare = value.strip("\"'")
    for quote in ('"', "'"):
        if value.count(quote) % 2:
            return f"{item}: a quote ({quote}) is not closed; the shell takes the outer ones: '{key}=\"{bare}\"'"
    if value[0] not in "\"'" and _open_brackets(value) != 0:
        return f"{item}: a bracket is not closed; in a text: '{key}=\"{value}\"', a list is written {key}=[a,b]"
    if value.startswith("{") and re.search(r"[\"'][\w.]+[\"']\s*:", value):
        plain = re.sub(r"[\"']([\w.]+)[\"'](\s*):", r"\1\2:", value)
        return f"{item}: the keys of a mapping have no quotes: '{key}={plain}'"
    if value.startswith("(") and value.endswith(")"):
        return f"{item}: a list is written {key}=[{value[1:-1]}], a text '{key}=\"{value}\"'"
    signs = "".join(dict.fromkeys(sign for sign in value if not _GRAMMAR.match(sign) and not sign.isalnum()))
    what = f"a value with {' '.join(signs)}" if signs else "such a value"
    inner = value.replace('"', "") if _parse(f'{key}="{value}"') is None else value
    return f"{item}: {what} is written in two pairs of quotes: '{key}=\"{inner}\"'"


def _open_brackets(value: str) -> int:
    """Number of brackets outside of quotes that are open at the end; negative where more are closed than opened."""
    bare = re.sub(r"\"[^\"]*\"|'[^']*'", "", value)
    return sum((sign in _PAIRS) - (sign in _PAIRS.values()) for sign in bare)
