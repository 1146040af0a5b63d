from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from codedance_verl.errors import UserError
from codedance_verl.evaluation.build import ReportInputs, SeedRun, build_report, write_files
from codedance_verl.evaluation.criteria import criteria
from codedance_verl.evaluation.effects import KindRoles
from codedance_verl.evaluation.outcomes import read_questions
from codedance_verl.evaluation.report import Excluded, Figure, Report, parse_report, read_report, write_report
from tests.unit.evaluation.experiment import EASY, HARD, ROLES, make_experiment, make_training
from tests.unit.evaluation.logs import line, write_log, write_test_file


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
    with pytest.raises(UserError, match="schema version 99, this code reads 1 and 2"):
        read_report(tmp_path / "report.json")


@pytest.mark.parametrize(("missing", "passed"), [(6, True), (7, False)])
def test_too_many_missing_rollouts_break_a_promise(report: Report, missing: int, passed: bool) -> None:
    """At most 2 % of 300 rollouts."""
    excluded = Excluded(total=300, infrastructure=1, ungraded=2, missing=missing - 3, cut_off=9)
    judged = criteria(replace(report, sft=replace(report.sft, excluded=excluded)))
    assert judged["completeness"].passed is passed


def test_json_holds_no_nan(report: Report) -> None:
    assert parse_report(json.loads(json.dumps(asdict(report), allow_nan=False))) == report


def test_a_report_needs_a_seed(inputs: ReportInputs) -> None:
    with pytest.raises(UserError, match="at least one RL seed"):
        build_report(replace(inputs, seeds=()))


def share(value: float | None, low: float | None = None, high: float | None = None, n: int = 400) -> Figure:
    return Figure(value, low, high, n)


def changed(value: Any, path: str, new: Any) -> Any:
    """The frozen record or dictionary with the part at a dotted path exchanged."""
    name, _, rest = path.partition(".")
    if isinstance(value, dict):
        return {**value, name: changed(value[name], rest, new) if rest else new}
    if isinstance(value, tuple):
        return tuple(changed(item, rest, new) if str(at) == name else item for at, item in enumerate(value))
    return replace(value, **{name: changed(getattr(value, name), rest, new) if rest else new})


@pytest.mark.parametrize(
    ("name", "path", "new", "passed"),
    [
        ("greedy_gain", "gain.hard.accuracy_greedy", share(0.25, 0.01, 0.4), True),
        ("greedy_gain", "gain.hard.accuracy_greedy", share(0.249, 0.2, 0.3), False),
        ("greedy_gain", "gain.hard.accuracy_greedy", share(0.4, 0.0, 0.8), False),
        ("accuracy_gain", "gain.hard.accuracy", share(0.25, 0.01, 0.4), True),
        ("accuracy_gain", "gain.hard.accuracy", share(0.249, 0.2, 0.3), False),
        ("accuracy_gain", "gain.hard.accuracy", share(0.4), False),
        ("questions", "gain.overall.accuracy", share(0.4, 0.3, 0.5, n=299), False),
        ("seeds", "rl.seeds", (0,), False),
        ("tool_rate_easy", "rl.easy.tool_rate", share(0.19), True),
        ("tool_rate_easy", "rl.easy.tool_rate", share(0.2), False),
        ("tool_rate_easy", "rl.easy.tool_rate", share(None), False),
        ("tool_rate_hard", "rl.hard.tool_rate", share(0.86), True),
        ("tool_rate_hard", "rl.hard.tool_rate", share(0.85), False),
        ("tool_rate_hard", "rl.hard.tool_rate", share(None), False),
        ("discovery", "greedy_gain.kinds.count_digits", share(0.4), True),
        ("discovery", "greedy_gain.kinds.count_digits", share(0.39), False),
        ("discovery", "greedy_gain.kinds.count_digits", share(None), False),
        ("returned_image_shown", "controls.rl.kinds.look.grey.as_is.accuracy", share(0.76), True),
        ("returned_image_shown", "controls.rl.kinds.look.grey.as_is.accuracy", share(0.75), False),
        ("returned_image_grey", "controls.rl.kinds.look.grey.accuracy", share(1 / 6 + 0.08), True),
        ("returned_image_grey", "controls.rl.kinds.look.grey.accuracy", share(1 / 6 + 0.081), False),
        ("returned_image_grey", "controls.rl.kinds.look.grey.accuracy", share(0.0), True),
        ("returned_image_grey", "controls.rl.kinds.look.grey.accuracy", share(None), False),
        ("returned_image_grey", "controls.rl.kinds.look.chance", None, False),
        ("look_alikes", "look_alikes.0.rl.pairs_right", share(0.75), True),
        ("look_alikes", "look_alikes.0.rl.pairs_right", share(0.74), False),
        ("wall_time", "wall_s", 101.0, False),
    ],
)
def test_each_criterion_can_be_missed(report: Report, name: str, path: str, new: Any, passed: bool) -> None:
    judged = criteria(changed(replace(report, wall_s=99.0), path, new), ROLES, max_wall_s=100.0)
    assert judged[name].passed is passed
    assert all(criterion.passed for other, criterion in judged.items() if other != name)


def test_criteria_on_kinds_that_are_not_there_are_left_out(report: Report) -> None:
    ordinary = {
        "greedy_gain",
        "accuracy_gain",
        "tool_rate_easy",
        "tool_rate_hard",
        "questions",
        "seeds",
        "completeness",
    }
    assert set(criteria(replace(report, look_alikes=()))) == ordinary
    roles = KindRoles(undemonstrated=("chart",), returned_image=("chart",))
    assert set(criteria(replace(report, look_alikes=()), roles)) == ordinary
    assert set(criteria(report, ROLES, 1.0)) - ordinary == {
        "discovery",
        "returned_image_shown",
        "returned_image_grey",
        "look_alikes",
        "wall_time",
    }


def test_a_kind_that_was_asked_and_not_measured_meets_nothing(report: Report, inputs: ReportInputs) -> None:
    asked = read_questions(inputs.test_file)
    empty = replace(report, greedy_gain=None, controls=None, look_alikes=())
    found = criteria(empty, ROLES, asked=asked)
    for name in ("discovery", "returned_image_shown", "returned_image_grey", "look_alikes"):
        assert not found[name].passed and found[name].value is None is found[name].low, name
    roles = KindRoles(("count_digits", "sum"), ("look", "look_large"), ROLES.look_alikes)
    lost = {kind: figure for kind, figure in report.greedy_gain.kinds.items() if kind != "sum"}  # type: ignore[union-attr]
    judged = criteria(changed(report, "greedy_gain.kinds", lost), roles, asked=asked)
    assert not judged["discovery"].passed and "count_digits, sum" in judged["discovery"].target


def test_seeds_that_ended_at_different_steps_are_refused(inputs: ReportInputs, tmp_path: Path) -> None:
    (log := tmp_path / "trajectories" / "val").mkdir(parents=True)
    for file in (inputs.seeds[1].folder / "trajectories" / "val").iterdir():
        shutil.copy(file, log / file.name.replace("000003", "000002"))
    with pytest.raises(UserError, match="seed 0 was last validated at step 3, seed 7 at step 2"):
        build_report(replace(inputs, seeds=(inputs.seeds[0], SeedRun(7, tmp_path))))


def test_the_kind_that_gains_least_decides_on_discovery(report: Report) -> None:
    low = changed(report, "greedy_gain.kinds.extremes", share(0.1, 0.0, 0.2))
    found = criteria(low, KindRoles(undemonstrated=("count_digits", "extremes")))["discovery"]
    assert not found.passed and found.value == 0.1


def test_figures_of_the_effects_by_hand(report: Report) -> None:
    assert report.greedy_gain is not None and report.controls is not None
    assert report.greedy_gain.hard.value == pytest.approx(2 / 3, abs=0.01)
    assert report.greedy_gain.hard.per_seed == (report.greedy_gain.hard.value,) * 2
    look = report.controls.rl.kinds["look"]
    assert look.chance == pytest.approx(1 / 6) and look.grey is not None
    assert look.grey.accuracy.value == pytest.approx(1 / 6, abs=0.05) and look.grey.as_is.accuracy.value == 1.0
    start, *after = report.tool_effect
    assert (start.seed, start.step) == (None, 0) and [(item.seed, item.step) for item in after] == [(0, 3), (1, 3)]
    assert after[0].groups.easy.change is not None and after[0].groups.easy.change.accuracy.value == 0.0
    first, second = report.discovery["count_digits"].seeds
    assert (first.first_call and first.first_call.step, first.first_right and first.first_right.step) == (1, 3)
    assert [point.share_right for point in second.points] == [0.0, 0.0, 1.0]
    (pair,) = report.look_alikes
    assert pair.rl.pairs_right.value == 1.0 and pair.rl.pairs_right.n == pair.rl.called.n + pair.rl.not_called.n


def test_the_ledger_lies_beside_the_report(inputs: ReportInputs, tmp_path: Path) -> None:
    write_files(inputs, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "ledger.jsonl").read_text().splitlines()]
    assert {(line["source"], line["seed"], line["step"]) for line in lines} >= {
        ("pair", None, 0),
        ("sampled", None, 0),
        ("pair", 1, 3),
        ("group", 0, 1),
    }
    worth = [
        line["value"] for line in lines if line["source"] == "pair" and line["seed"] == 0 and line["kind"] == "look"
    ]
    needless = [
        line["value"] for line in lines if line["source"] == "pair" and line["seed"] == 0 and line["kind"] == "sum"
    ]
    assert min(worth) > 0.2 and max(map(abs, needless)) < 1e-9


def test_reports_of_the_first_version_are_read(report: Report, tmp_path: Path) -> None:
    write_report(report, tmp_path / "report.json")
    value = json.loads((tmp_path / "report.json").read_text())
    for name in ("greedy_gain", "controls", "tool_effect", "discovery", "look_alikes"):
        del value[name]
    (tmp_path / "report.json").write_text(json.dumps(value | {"schema_version": 1}))
    found = read_report(tmp_path / "report.json")
    assert found.rl == report.rl and found.greedy_gain is None and found.tool_effect == ()


def test_a_test_set_without_controls_still_gives_a_report(tmp_path: Path) -> None:
    lines = [line(f"q{index}", variant=variant) for index in range(4) for variant in ("sampled", "greedy")]
    test_file = write_test_file(tmp_path / "test.parquet", lines)
    for folder in ("eval_sft", "rl"):
        write_log(tmp_path / folder / "trajectories", lines)
    make_training(tmp_path / "rl")
    inputs = ReportInputs("Old", test_file, tmp_path / "eval_sft", (SeedRun(0, tmp_path / "rl"),), {"data": 1.0})
    report = write_files(inputs, tmp_path)
    assert report.controls is not None and report.controls.rl.overall.grey is None
    assert (report.tool_effect, report.discovery, report.look_alikes) == ((), {}, ())
    assert "not measured: the test set asks no question without tools." in (tmp_path / "report.html").read_text()
    assert read_report(tmp_path / "report.json") == report
