"""Grading of answers: rules in a fixed order (`matchers`), one module of `rules` each; a judge comes last."""

from __future__ import annotations

from codedance_verl.grading.config import GradingConfig
from codedance_verl.grading.grader import Grader
from codedance_verl.grading.matchers import grade

__all__ = ["Grader", "GradingConfig", "grade"]
