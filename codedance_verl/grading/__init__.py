"""Grading of answers: rules in a fixed order (`matchers`), one module of `rules` each; a judge comes last."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from codedance_verl.grading.config import GradingConfig
    from codedance_verl.grading.grader import Grader
    from codedance_verl.grading.matchers import grade

__all__ = ["Grader", "GradingConfig", "grade"]

_MODULES = {"Grader": "grader", "GradingConfig": "config", "grade": "matchers"}


def __getattr__(name: str) -> Any:
    """Imports a name when it is first asked for: the process for formulas, started again and again, needs none."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
