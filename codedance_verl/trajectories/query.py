"""Filters of a list of trajectories, read from the fields of a form or a link."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import urlencode

from codedance_verl.errors import UserError

_NAMES = ("split", "step", "kind", "variant", "control", "finish", "group", "record")
_EQUAL = {name: f'"{name}" = ?' for name in _NAMES}
_LEAST = {f"min_{name}": f"{name} >= ?" for name in ("turns", "calls", "images", "score")}
_MOST = {f"max_{name}": f"{name} <= ?" for name in ("turns", "calls", "score")}
_CONDITIONS = _EQUAL | _LEAST | _MOST | {"status": "instr(statuses, ',' || ? || ',') > 0"}
"""SQL of each filter of one value; `statuses` is a list in one text, with a comma on both sides of each."""
_OUTCOMES = {"correct": "correct = 1", "wrong": "correct = 0", "ungraded": "correct IS NULL", "masked": "masked = 1"}
_TOOLS = {"used": "calls > 0", "unused": "calls = 0", "failed": "failed > 0"}
_WHOLE = ("step", "min_turns", "max_turns", "min_calls", "max_calls", "min_images")
_NUMBERS = ("min_score", "max_score")

RENAMED = {"batch": "group"}
"""Filters of earlier versions, by their names of today."""


@dataclass(frozen=True)
class Query:
    """Filters of a list; one that is None or empty lets everything through.

    `outcome` is `correct`, `wrong`, `ungraded` or `masked`; `tools` is `used`, `unused` or `failed`; `status` one that
    a call of the trajectory came back with; `text` stands in question, answer or name of the record.
    """

    split: str = ""
    step: int | None = None
    kind: str = ""
    variant: str = ""
    control: str = ""
    outcome: str = ""
    finish: str = ""
    status: str = ""
    tools: str = ""
    min_turns: int | None = None
    max_turns: int | None = None
    min_calls: int | None = None
    max_calls: int | None = None
    min_images: int | None = None
    min_score: float | None = None
    max_score: float | None = None
    group: str = ""
    record: str = ""
    text: str = ""

    @classmethod
    def from_fields(cls, values: Mapping[str, str]) -> Query:
        """Filters from the fields of a form; other fields are ignored.

        Raises:
            UserError: names the field, the value seen and what is allowed.
        """
        for name, new_name in RENAMED.items():
            if name in values:
                raise UserError(f"{name}: is called {new_name} now")
        given: dict[str, Any] = {}
        for field in fields(cls):
            value = values.get(field.name, "").strip()[:300]
            if value:
                given[field.name] = _read(field.name, value)
        return cls(**given)

    def where(self) -> tuple[str, tuple[Any, ...]]:
        """An SQL condition and its values."""
        given = [name for name in _CONDITIONS if getattr(self, name) not in ("", None)]
        conditions, values = [_CONDITIONS[name] for name in given], [getattr(self, name) for name in given]
        conditions += [table[chosen] for table, chosen in ((_OUTCOMES, self.outcome), (_TOOLS, self.tools)) if chosen]
        if self.text:
            conditions.append("(question LIKE ? ESCAPE '\\' OR answer LIKE ? ESCAPE '\\' OR record LIKE ? ESCAPE '\\')")
            values += [_like(self.text)] * 3
        return " AND ".join(conditions) or "1", tuple(values)

    def link(self, **others: object) -> str:
        """The query of a link that means this, and `others`; empty where there is nothing."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        return urlencode({name: value for name, value in {**own, **others}.items() if value not in ("", None)})


def _like(text: str) -> str:
    # `%` and `_` stand for any characters in LIKE; a user means them as they are.
    for special in ("\\", "%", "_"):
        text = text.replace(special, f"\\{special}")
    return f"%{text}%"


def _read(name: str, value: str) -> Any:
    if name in _WHOLE:
        if not value.lstrip("-").isascii() or not value.lstrip("-").isdigit() or len(value) > 15:
            raise UserError(f"{name}={value}: must be a whole number")
        return int(value)
    if name in _NUMBERS:
        try:
            return float(value)
        except ValueError:
            raise UserError(f"{name}={value}: must be a number") from None
    allowed = {"outcome": _OUTCOMES, "tools": _TOOLS, "split": ("train", "val")}.get(name)
    if allowed is not None and value not in allowed:
        raise UserError(f"{name}={value}: must be one of {', '.join(allowed)}")
    return value.encode("utf-8", "replace").decode()  # SQLite takes no half of a surrogate pair
