"""Graders of the user's own (`grading.custom`): choice by record, and calls."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

from pydantic import Field, field_validator

from codedance_verl.config.node import Allowed, KeyFault, Node, null_as
from codedance_verl.grading.matchers import STYLES
from codedance_verl.isolated.function import FunctionPath, IsolatedFunction
from codedance_verl.types import Grade, Verdict

RULE = "custom"
PARAMETERS = ("answer", "truth", "question", "record")
MAX_EVIDENCE_CHARS = 1_000

_ALLOWED = "a truth value, None, or a pair of one of these and a text"


Paths = Annotated[dict[str, FunctionPath], null_as({}), Allowed("a mapping to package.module:function")]


class CustomGraders(Node):
    """Dotted paths of the user's graders; the most particular one that is named grades a record."""

    KEY: ClassVar[str] = "grading.custom"

    default: FunctionPath | None = None
    """Grader of every other record; null: these are graded by the rules and the judge."""
    by_style: Paths = Field(default_factory=dict)
    """Graders by `reward_model.style` of the record."""
    by_source: Paths = Field(default_factory=dict)
    """Graders by `data_source` of the record; these come first."""

    @field_validator("by_style")
    @classmethod
    def _check_styles(cls, paths: dict[str, str]) -> dict[str, str]:
        for style, path in paths.items():
            if style not in STYLES:
                raise KeyFault(style, path, f"no such style; known are {', '.join(STYLES)}")
        return paths

    def path_for(self, style: str, data_source: str) -> str | None:
        """Grader of a record; None where rules and judge grade it."""
        return self.by_source.get(data_source) or self.by_style.get(style) or self.default

    def named(self, node: str) -> Iterator[tuple[str, str]]:
        """Each grader once, with the dotted key that names it."""
        keys = {path: f"{node}.by_source.{source}" for source, path in self.by_source.items()}
        keys = {path: f"{node}.by_style.{style}" for style, path in self.by_style.items()} | keys
        if self.default is not None:
            keys.setdefault(self.default, node)
        return ((key, path) for path, key in keys.items())


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
