"""Checks the functions of the user's own, graders and reward term: each is imported once, in a process of its own."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig

from codedance_verl.errors import UserError
from codedance_verl.grading import GradingConfig
from codedance_verl.grading.custom import functions
from codedance_verl.isolated.function import IsolatedFunction
from codedance_verl.preflight.report import Report
from codedance_verl.reward.config import RewardConfig
from codedance_verl.reward.custom_term import CustomTerm


def check_custom(config: DictConfig, report: Report) -> None:
    """Checks that every function that the configuration names can be imported and takes its arguments.

    `check_settings` reports settings that cannot be read.
    """
    try:
        grading = GradingConfig.from_mapping(config.grading)
    except UserError:
        grading = GradingConfig()
    for function in functions(grading.custom, "grading.custom", grading.custom_timeout_s, processes=1).values():
        _check(function, report)
    try:
        reward = RewardConfig.from_mapping(config.reward_preset)
    except UserError:
        return
    _check(CustomTerm(reward), report)


def _check(function: IsolatedFunction[Any] | CustomTerm, report: Report) -> None:
    with report.collecting():
        try:
            function.check()
            if function.name:
                report.add_row("custom", function.name.partition("=")[0], function.name.partition("=")[2])
        finally:
            function.close()
