"""Graders of the user's own (`grading.custom`): choice by record, and calls."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from codedance_verl.config.checks import check_known
from codedance_verl.errors import UserError
from codedance_verl.grading.matchers import STYLES
from codedance_verl.isolated.function import IsolatedFunction, parse_path
from codedance_verl.types import Grade, Verdict

RULE = "custom"
PARAMETERS = ("answer", "truth", "question", "record")
MAX_EVIDENCE_CHARS = 1_000

_ALLOWED = "a truth value, None, or a pair of one of these and a text"


@dataclass(frozen=True)
class CustomGraders:
    """Dotted paths of the user's graders; the most particular one that is named grades a record.

    Attributes:
        by_source: by `data_source` of the record; these come first.
        by_style: by `reward_model.style` of the record.
        default: for every other record; None: rules and judge grade these.
    """

    default: str | None = None
    by_style: Mapping[str, str] = field(default_factory=dict)
    by_source: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_value(cls, value: Any, node: str) -> CustomGraders:
        """Reads what stands at the dotted key `node`: nothing, a path for all records, or a mapping of the attributes.

        Nothing is imported. Raises `UserError` with the dotted key, the value and what is allowed.
        """
        if value is None:
            return cls()
        if not isinstance(value, Mapping):
            return cls(default=parse_path(value, node))
        check_known(value, [item.name for item in fields(cls)], node)
        default, styles = value.get("default"), _paths(value.get("by_style"), f"{node}.by_style")
        for style, path in styles.items():
            if style not in STYLES:
                raise UserError(f"{node}.by_style.{style}={path}: no such style; known are {', '.join(STYLES)}")
        return cls(
            default=None if default is None else parse_path(default, f"{node}.default"),
            by_style=styles,
            by_source=_paths(value.get("by_source"), f"{node}.by_source"),
        )

    def path_for(self, style: str, data_source: str) -> str | None:
        """Grader of a record; None where rules and judge grade it."""
        return self.by_source.get(data_source) or self.by_style.get(style) or self.default

    def named(self, node: str) -> Iterator[tuple[str, str]]:
        """Yields each grader once, with the dotted key that names it."""
        keys = {path: f"{node}.by_source.{source}" for source, path in self.by_source.items()}
        keys = {path: f"{node}.by_style.{style}" for style, path in self.by_style.items()} | keys
        if self.default is not None:
            keys.setdefault(self.default, node)
        for path, key in keys.items():
            yield key, path


def functions(graders: CustomGraders, node: str, seconds: float, processes: int) -> dict[str, IsolatedFunction[Grade]]:
    """Graders by their paths, ready to be called; none is started yet."""
    return {
        path: IsolatedFunction(
            key,
            path,
            PARAMETERS,
            functools.partial(read_grade, path=path),
            seconds=seconds,
            processes=processes,
        )
        for key, path in graders.named(node)
    }


def read_grade(value: Any, path: str) -> Grade:
    """Verdict that a grader returned, with its evidence, else its path. Raises `ValueError` for what is none."""
    verdict, evidence = value if isinstance(value, list) and len(value) == 2 else (value, path)
    if (verdict is not None and not isinstance(verdict, bool)) or not isinstance(evidence, str):
        raise ValueError(f"it returned {value!r:.100}; it must return {_ALLOWED}")
    found = {True: Verdict.CORRECT, False: Verdict.WRONG, None: Verdict.UNGRADED}[verdict]
    return Grade(found, RULE, evidence[:MAX_EVIDENCE_CHARS])


def _paths(value: Any, node: str) -> Mapping[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise UserError(f"{node}={value}: must be a mapping to package.module:function")
    return {str(name): parse_path(path, f"{node}.{name}") for name, path in value.items()}
