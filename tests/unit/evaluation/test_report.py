from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from codedance_verl.errors import UserError
from codedance_verl.evaluation.build import ReportInputs, build_report, write_files
from codedance_verl.evaluation.criteria import criteria
from codedance_verl.evaluation.report import Excluded, Figure, Report, parse_report, read_report, write_report
from tests.unit.evaluation.experiment import EASY, HARD, make_experiment


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> ReportInputs:
    return make_experiment(tmp_path_factory.mktemp("experiment"))


@pytest.fixture(scope="module")
def report(inputs: ReportInputs) -> Report:
    return build_report(inputs)


def test_the_figures_of_an_experiment_by_hand(report: Report) -> None:
    right = (HARD // 3 + (EASY + 1) // 2) / (HARD + EASY)
    assert report.sft.overall.questions == HARD + EASY
    assert report.sft.overall.accuracy.value == pytest.approx(right, abs=0.005)
    assert report.rl.overall.accuracy.value == 1.0 and report.rl.seeds == (0, 1)
    assert report.gain.overall.accuracy.n == HARD + EASY
    assert report.gain.overall.accuracy.value == pytest.approx(1 - right, abs=0.005)
    assert report.rl.easy.tool_rate.value == 0.0 and report.rl.hard.tool_rate.value == 1.0
    assert report.blank_image.rl.overall.blank.value == 0.0 and report.blank_image.rl.overall.real.value == 1.0
    assert report.rl_steps.mean_seconds.update == 2.0 and report.rl_steps.measured == 6
    assert [point.accuracy for point in report.training[1].points] == [0.25, 0.5, 0.75]
    assert report.wall_s == 310.0
    assert report.versions["python"]
    assert report.all_passed


def test_the_report_is_laid_out_as_promised(inputs: ReportInputs, tmp_path: Path) -> None:
    write_files(inputs, tmp_path)
    value = json.loads((tmp_path / "report.json").read_text())
    for model in ("sft", "rl"):
        for group in (
            value[model]["overall"],
            value[model]["easy"],
            value[model]["hard"],
            value[model]["kinds"]["sum"],
        ):
            for name in ("accuracy", "accuracy_greedy", "tool_rate", "turns", "execution_success", "format"):
                assert {"value", "low", "high", "n"} <= set(group[name])
    assert value["rl"]["seeds"] == [0, 1]
    assert value["stages"] == {"data": 10.0, "sft": 100.0, "rl_seed0": 200.0}
    assert {"generate", "execute", "grade", "update", "weight_sync"} <= set(value["rl_steps"]["mean_seconds"])
    assert value["passed"]["accuracy_gain"]["passed"] is True
    assert (tmp_path / "report.html").is_file()


def test_a_report_survives_writing_and_reading(report: Report, tmp_path: Path) -> None:
    write_report(report, tmp_path / "report.json")
    assert read_report(tmp_path / "report.json") == report
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def _drop(value: dict[str, Any]) -> None:
    del value["sft"]["hard"]["tool_rate"]


def _add(value: dict[str, Any]) -> None:
    value["rl"]["kinds"]["sum"]["tool_use"] = 1


def _retype(value: dict[str, Any]) -> None:
    value["rl"]["overall"]["accuracy"]["value"] = "0.9"


def _misplace(value: dict[str, Any]) -> None:
    value["gain"]["overall"]["accuracy"]["low"] = 0.99


def _flag(value: dict[str, Any]) -> None:
    value["passed"]["seeds"]["passed"] = 1


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (_drop, "report.sft.hard: Object missing required field `tool_rate`"),
        (_add, "report.rl.kinds.sum.tool_use is unknown"),
        (_retype, "report.rl.overall.accuracy.value: Expected `float . null`, got `str`"),
        (_misplace, r"report.gain.overall.accuracy: the value .* lies outside its interval"),
        (_flag, r"report.passed\[...\].passed: Expected `bool`, got `int`"),
    ],
)
def test_a_report_that_does_not_fit_the_schema_is_refused(
    report: Report, tmp_path: Path, spoil: Callable[[dict[str, Any]], None], complaint: str
) -> None:
    write_report(report, tmp_path / "report.json")
    value = json.loads((tmp_path / "report.json").read_text())
    spoil(value)
    (tmp_path / "report.json").write_text(json.dumps(value))
    with pytest.raises(UserError, match=complaint):
        read_report(tmp_path / "report.json")


def test_another_schema_version_is_named(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text('{"schema_version": 99}')
    with pytest.raises(UserError, match="schema version 99, this code reads 1"):
        read_report(tmp_path / "report.json")


@pytest.mark.parametrize(("missing", "passed"), [(6, True), (7, False)])
def test_too_many_missing_rollouts_break_a_promise(report: Report, missing: int, passed: bool) -> None:
    """At most 2 % of 300 rollouts."""
    sft = replace(
        report.sft, excluded=Excluded(total=300, infrastructure=1, ungraded=2, missing=missing - 3, cut_off=9)
    )
    assert criteria(sft, report.rl, report.gain, 1.0)["completeness"].passed is passed


def test_json_holds_no_nan(report: Report) -> None:
    assert parse_report(json.loads(json.dumps(asdict(report), allow_nan=False))) == report


def test_a_report_needs_a_seed(inputs: ReportInputs) -> None:
    with pytest.raises(UserError, match="at least one RL seed"):
        build_report(replace(inputs, seeds=()))


def judged(report: Report, **changes: Figure) -> dict[str, bool]:
    """The criteria with single figures exchanged."""
    gain = replace(
        report.gain,
        overall=replace(
            report.gain.overall,
            accuracy=changes.get("gain", report.gain.overall.accuracy),
            accuracy_greedy=changes.get("greedy", report.gain.overall.accuracy_greedy),
        ),
    )
    easy_before = replace(report.sft.easy, tool_rate=changes.get("easy_before", report.sft.easy.tool_rate))
    easy_after = replace(report.rl.easy, tool_rate=changes.get("easy_after", report.rl.easy.tool_rate))
    hard_before = replace(report.sft.hard, tool_rate=changes.get("hard_before", report.sft.hard.tool_rate))
    hard_after = replace(report.rl.hard, tool_rate=changes.get("hard_after", report.rl.hard.tool_rate))
    found = criteria(
        replace(report.sft, easy=easy_before, hard=hard_before),
        replace(report.rl, easy=easy_after, hard=hard_after),
        gain,
        wall_s=100.0,
        max_wall_s=90.0,
    )
    return {name: criterion.passed for name, criterion in found.items()}


def share(value: float | None, low: float | None = None, high: float | None = None, n: int = 400) -> Figure:
    return Figure(value, low, high, n)


@pytest.mark.parametrize(
    ("name", "changes", "passed"),
    [
        ("accuracy_gain", {"gain": share(0.25, 0.01, 0.4)}, True),
        ("accuracy_gain", {"gain": share(0.249, 0.2, 0.3)}, False),
        ("accuracy_gain", {"gain": share(0.4, 0.0, 0.8)}, False),
        ("accuracy_gain", {"gain": share(0.4)}, False),
        ("questions", {"gain": share(0.4, 0.3, 0.5, n=299)}, False),
        ("greedy_not_lower", {"greedy": share(0.0, -0.1, 0.1)}, True),
        ("greedy_not_lower", {"greedy": share(-0.01, -0.1, 0.1)}, False),
        ("tool_rate_easy", {"easy_before": share(0.05), "easy_after": share(0.14)}, True),
        ("tool_rate_easy", {"easy_before": share(0.9), "easy_after": share(0.8)}, True),
        ("tool_rate_easy", {"easy_before": share(0.2), "easy_after": share(0.2)}, False),
        ("tool_rate_easy", {"easy_after": share(None)}, False),
        ("tool_rate_hard", {"hard_before": share(0.95), "hard_after": share(0.86)}, True),
        ("tool_rate_hard", {"hard_before": share(0.3), "hard_after": share(0.4)}, True),
        ("tool_rate_hard", {"hard_before": share(0.5), "hard_after": share(0.4)}, False),
        ("wall_time", {}, False),
    ],
)
def test_each_criterion_can_be_missed(report: Report, name: str, changes: dict[str, Figure], passed: bool) -> None:
    assert judged(report, **changes)[name] is passed
