from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from codedance_verl.data.checking import check_file
from codedance_verl.data.conditions import Condition, Control, only_for_evaluation
from codedance_verl.errors import UserError
from tests.unit.preflight.folders import row, write


@pytest.mark.parametrize(
    ("extra_info", "condition"),
    [
        (None, Condition()),
        ({"variant": "sampled"}, Condition("sampled")),
        ({"variant": "greedy"}, Condition("greedy", temperature=0.0)),
        ({"variant": "greedy", "temperature": 0.5}, Condition("greedy", temperature=0.5)),
        ({"variant": "cold", "temperature": 0}, Condition("cold", temperature=0.0)),
        ({"variant": "blank", "control": None, "temperature": math.nan}, Condition("blank")),
        ({"variant": "grey", "control": "grey_observations"}, Condition("grey", Control.GREY_OBSERVATIONS, 0.0)),
        ({"variant": "dim", "control": "grey_observations"}, Condition("dim", Control.GREY_OBSERVATIONS)),
        (
            {"variant": "off", "control": "no_tools", "temperature": 0.0},
            Condition("off", Control.NO_TOOLS, temperature=0.0),
        ),
    ],
)
def test_what_a_record_states(extra_info: dict[str, Any] | None, condition: Condition) -> None:
    assert Condition.of(extra_info) == condition


@pytest.mark.parametrize(
    ("extra_info", "told"),
    [
        (
            {"variant": "grey", "control": "gray"},
            "extra_info.control is 'gray'; must be one of grey_observations, no_tools, forced_tools",
        ),
        ({"variant": "x", "control": 3}, "extra_info.control is '3'; must be one of"),
        ({"control": "no_tools"}, "extra_info.control is no_tools and extra_info.variant None; rollouts are counted"),
        ({"control": "no_tools", "variant": "greedy"}, "extra_info.variant 'greedy'; .* such as no_tools"),
        ({"variant": "grey"}, "variant is 'grey' and .*control None; the control of that variant is grey_observations"),
        ({"variant": "no_tools", "control": "forced_tools"}, "'forced_tools'; the control of that variant is no_tools"),
        ({"temperature": -1}, "extra_info.temperature is '-1'; must be a number from 0 to 2"),
        ({"temperature": "hot"}, "extra_info.temperature is 'hot'"),
        ({"temperature": True}, "extra_info.temperature is 'True'"),
        ({"temperature": math.inf}, "extra_info.temperature is 'inf'"),
    ],
)
def test_a_condition_that_there_is_not_is_refused(extra_info: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Condition.of(extra_info)


def _with(extra_info: dict[str, Any], number: int = 0) -> dict[str, Any]:
    made = row(number)
    return {**made, "extra_info": {**made["extra_info"], **extra_info}}


def test_the_check_of_a_file_names_the_row(tmp_path: Path) -> None:
    rows = [_with({"variant": "sampled", "control": None}), _with({"variant": "grey", "control": "gray"}, 1)]
    with pytest.raises(UserError, match=r"^test\.parquet row 1: extra_info\.control is 'gray'; must be one of"):
        check_file(write(tmp_path / "test.parquet", rows))


def test_the_check_finds_the_first_row_that_is_for_evaluation(tmp_path: Path) -> None:
    rows = [_with({"variant": "sampled", "control": None}), _with({"variant": "x", "control": "no_tools"}, 1)]
    assert check_file(write(tmp_path / "test.parquet", rows)).for_evaluation == (1, "extra_info.control is no_tools")
    greedy = write(tmp_path / "greedy.parquet", [_with({"variant": "greedy"})])
    assert check_file(greedy).for_evaluation == (0, "extra_info.variant is greedy")
    assert check_file(write(tmp_path / "train.parquet", rows[:1])).for_evaluation is None
    assert only_for_evaluation({"variant": "cold", "temperature": 0.5}) == "extra_info.temperature is 0.5"
