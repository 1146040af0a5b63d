from __future__ import annotations

import pytest

from codedance_verl.rollout.worker import FaultCount
from codedance_verl.types import FinishReason, Trajectory


def ended(finish: FinishReason, count: int) -> list[Trajectory]:
    return [Trajectory("r", "s", "q", "a", (), finish)] * count


def test_faults_with_something_good_in_between_never_end_a_run() -> None:
    faults = FaultCount(most=4)
    for _ in range(10):
        faults.add([*ended(FinishReason.INFRASTRUCTURE, 3), *ended(FinishReason.LENGTH, 1)])
    assert faults.in_a_row == 0


def test_too_many_faults_in_a_row_are_an_error() -> None:
    faults = FaultCount(most=4)
    faults.add(ended(FinishReason.INFRASTRUCTURE, 3))
    with pytest.raises(RuntimeError, match=r"5 rollouts in a row .*environment\.max_faults_in_a_row=4"):
        faults.add(ended(FinishReason.INFRASTRUCTURE, 2))
