"""Settings of an evaluation: what is wrong is named by its dotted key."""

from __future__ import annotations

import pytest

from codedance_verl.data.conditions import Control
from codedance_verl.errors import UserError
from codedance_verl.harness.settings import load
from codedance_verl.records.record import Status
from codedance_verl.tasks.registry import TASKS

GIVEN = ["eval.model=m", "eval.benchmarks=[vstar,hrbench_4k]", "eval.data=d"]


def test_the_defaults_ask_once_and_greedily() -> None:
    found = load(GIVEN).evaluation
    assert (found.samples, found.temperature, found.control, found.benchmarks) == (1, 0, None, ("vstar", "hrbench_4k"))
    assert found.asked_again == (Status.ENDPOINT_FAILURE, Status.SANDBOX_FAULT)


@pytest.mark.parametrize(
    ("control", "of_service"),
    [("no_tools", Control.NO_TOOLS), ("grey_observations", Control.GREY_OBSERVATIONS), ("blank", None), ("null", None)],
)
def test_blank_is_no_control_of_the_service(control: str, of_service: Control | None) -> None:
    assert load([*GIVEN, f"eval.control={control}"]).evaluation.service_control is of_service


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["eval.samples=0"], "eval.samples=0: must be a whole number from 1 to 1000"),
        (
            ["eval.control=no_code"],
            "eval.control=no_code: must be one of no_tools, forced_tools, grey_observations, blank, or null",
        ),
        (
            ["eval.benchmarks=[vsta]"],
            "eval.benchmarks=vsta: must be a parquet file of questions, or of countbench, pixmocount, vstar",
        ),
        (["eval.again=[answered]"], "eval.again=answered: must be of endpoint_failure"),
        (["eval.model=''", "eval.data=''"], "eval.model: must be given\neval.data: must be given"),
        (["eval.judge_agreement=5"], "eval.judge_agreement: there is no judge; name its servers"),
        (["eval.modle=3"], "did you mean eval.model?"),
    ],
)
def test_a_wrong_setting_is_named(overrides: list[str], line: str) -> None:
    with pytest.raises(UserError) as caught:
        load([*GIVEN, *overrides])
    assert line in str(caught.value)


def test_the_recipe_asks_the_eleven_benchmarks_of_the_publication_and_keys_behind_it_count() -> None:
    loaded = load(["recipe=codedance_7b_benchmarks", "eval.model=m", "eval.data=d", "eval.temperature=1"])
    assert len(loaded.evaluation.benchmarks) == 11
    assert {TASKS[name].name for name in loaded.evaluation.benchmarks} == set(loaded.evaluation.benchmarks)
    assert (loaded.evaluation.max_turns, loaded.evaluation.temperature) == (10, 1.0)


def test_a_recipe_of_training_names_those_of_an_evaluation() -> None:
    with pytest.raises(UserError, match=r"^recipe=cpu_demo: must be one of codedance_7b_benchmarks$"):
        load(["recipe=cpu_demo", "eval.model=m", "eval.data=d"])
