"""Checks of single settings; each error is one line that names the dotted key, the value and what is allowed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from codedance_verl.errors import UserError


def check_known(values: Mapping[Any, Any], known: Iterable[str], node: str) -> None:
    """Raise `UserError` for a key of `node` that is not known."""
    names = list(known)
    for key in values:
        if key not in names:
            raise UserError(f"{node}.{key}: unknown key; known are {', '.join(names)}")


def check_number(value: object, low: float, high: float, key: str) -> float:
    """The value as a float, or `UserError` where it is none within the range."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise UserError(f"{key}={value}: must be a number from {low:g} to {high:g}")
    return float(value)


def check_whole(value: object, low: int, high: int, key: str) -> int:
    """The value, or `UserError` where it is no whole number within the range."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise UserError(f"{key}={value}: must be a whole number from {low} to {high}")
    return value


def check_choice(value: object, allowed: Sequence[str], key: str) -> str:
    """The value, or `UserError` where it is none of the allowed ones."""
    if not isinstance(value, str) or value not in allowed:
        raise UserError(f"{key}={value}: must be one of {', '.join(allowed)}")
    return value
