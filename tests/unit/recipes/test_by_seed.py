"""Table of the demo's criteria by seed."""

from __future__ import annotations

from pathlib import Path

import pytest

from codedance_verl.evaluation.report import Criterion
from recipes.cpu_demo.by_seed import main, table


def _criterion(value: float | None, passed: bool) -> Criterion:
    return Criterion("target", passed, None, value, None, None)


def test_what_a_seed_misses_is_bold_and_counted_and_the_run_s_own_criteria_are_left_out() -> None:
    first = {"greedy_gain": _criterion(0.512, True), "discovery": _criterion(0.31, False)}
    second = {"greedy_gain": _criterion(0.4, True), "discovery": _criterion(None, False)}
    lines = table({0: first | {"wall_time": _criterion(9.0, False)}, 3: second | {"wall_time": _criterion(9.0, True)}})
    assert lines.splitlines() == [
        "| criterion | seed 0 | seed 3 |",
        "| --- | ---: | ---: |",
        "| `greedy_gain` | 0.51 | 0.40 |",
        "| `discovery` | **0.31** | **n/a** |",
        "| met | 1 of 2 | 1 of 2 |",
    ]


def test_a_folder_without_a_demo_is_said_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path), "--seeds", "0"]) == 2
    assert "error: " in capsys.readouterr().err
