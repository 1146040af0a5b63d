from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.faults import IN_A_STEP, LOGGED, MASKED, SKIPPED, Step, faults_of
from benchmarks.faulty_steps import PLAN, StepFault


def as_planned() -> list[Step]:
    def step(number: int, fault: StepFault) -> Step:
        masked, skipped = MASKED.get(fault, 0), fault in SKIPPED
        return Step(
            number, fault, LOGGED.get(fault, IN_A_STEP), masked, masked, skipped, 0 if skipped else 9, 9 * skipped
        )

    return [step(number, fault) for number, fault in enumerate(PLAN, start=1)]


def test_a_run_as_planned_adds_up_and_meets_every_fault() -> None:
    assert set(PLAN) == set(StepFault)
    assert faults_of(as_planned()) == []


@pytest.mark.parametrize(
    ("number", "change", "told"),
    [
        (1, {"masked": 5, "told": 5}, "step 1: logged, masked, skipped should be"),
        (3, {"told": 3}, "step 3: 4 rollouts are logged as masked, metrics have 3"),
        (4, {"changed": 1}, "step 4: 1 tensors have changed"),
        (5, {"changed": 0, "equal": 9}, "step 5: 0 tensors have changed and 9 have not"),
        (7, {"skipped": False, "changed": 1}, "step 7: logged, masked, skipped should be"),
    ],
)
def test_what_does_not_add_up_is_told(number: int, change: dict[str, int], told: str) -> None:
    steps = as_planned()
    steps[number - 1] = replace(steps[number - 1], **change)
    (line,) = faults_of(steps)
    assert line.startswith(told)


def test_a_step_that_is_missing_is_told() -> None:
    assert faults_of(as_planned()[:-1]) == [f"{len(PLAN) - 1} steps have metrics, not {len(PLAN)}"]
