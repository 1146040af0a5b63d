from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from codedance_verl.errors import UserError
from codedance_verl.harness.call_use import Use
from codedance_verl.harness.figures import OFFICIAL, OURS
from codedance_verl.harness.report import EvaluationReport, read_report, write_report
from codedance_verl.harness.report_build import benchmark_report, evaluation_report
from codedance_verl.harness.report_files import write_files
from codedance_verl.harness.scores import scores_of, write_scores
from codedance_verl.records.record import Status
from codedance_verl.records.store import open_store
from codedance_verl.statistics.intervals import wilson
from codedance_verl.tasks.registry import task_of
from tests.unit.harness.made_up import benchmark, every, failed, items, key, measured, ran_again, reply


def test_a_benchmark_has_official_and_own_figures_with_intervals_and_power() -> None:
    asked = items(100)
    found = benchmark_report(benchmark(every(asked, lambda n: float(n < 80), lambda n: n % 2), asked))
    assert [scoring.which for scoring in found.scorings] == [OFFICIAL, OURS]
    for scoring in found.scorings:
        assert scoring.headline is not None
        assert scoring.headline.estimate.value == pytest.approx(0.8)
        assert scoring.headline.estimate.low is not None and 0.7 < scoring.headline.estimate.low < 0.8
        assert "cannot be seen" in scoring.headline.power
        assert {figure.name for figure in scoring.figures} > {"direct_attributes", "relative_position"}
    assert found.behaviour.use.value == pytest.approx(0.5)
    assert (found.behaviour.calls, found.behaviour.turns, found.behaviour.completion_tokens) == (0.5, 1.5, 27.0)
    assert found.behaviour.finish == {"answer": 100}
    assert found.budget["limits"] == "environment.max_turns 10"
    assert "100 items, but 191" in found.denominator.note
    assert [row.value for row in found.published] == pytest.approx([0.848, 0.764, 0.818])


def test_faults_stay_in_the_denominator_and_are_said_apart() -> None:
    asked = items(12)
    answers = [measured(item, 1.0) for item in asked[:6]]
    answers += [failed(item) for item in asked[6:8]]
    answers += [failed(asked[8], Status.SANDBOX_FAULT, "no container"), measured(asked[9], None)]
    found = benchmark_report(benchmark(answers, asked))
    headline = found.scorings[0].headline
    assert headline is not None
    assert headline.estimate.value == pytest.approx(0.5)
    assert headline.best == pytest.approx(1.0)
    assert sum(found.scorings[0].without_score.values()) == 6
    denominator = found.denominator
    assert (denominator.items, denominator.answered, denominator.not_asked) == (12, 7, 2)
    assert denominator.faults == {"endpoint_failure": 2, "sandbox_fault": 1}
    assert denominator.reasons == {"503": 2, "no container": 1}
    assert denominator.not_answered == 5


def test_variants_that_papers_quote_are_figures_of_their_own() -> None:
    asked = items(8, "hrbench_4k", in_cluster=4)
    found = benchmark_report(benchmark(every(asked, lambda n: float(n != 5), lambda _: 0), asked, "hrbench_4k"))
    figures = {figure.name: figure for figure in found.scorings[0].figures}
    assert figures["rows"].estimate.value == pytest.approx(7 / 8)
    assert figures["rows"].clusters == 2
    assert {"accuracy", "category_mean", "all_four"} <= figures.keys()


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_benchmark_that_nobody_asked_has_a_report(number: int, tmp_path: Path) -> None:
    asked = items(number)
    report = evaluation_report("tiny", [benchmark([], asked)])
    write_report(report, tmp_path / "report.json")
    found = read_report(tmp_path / "report.json").benchmarks[0]
    assert (found.denominator.not_asked, found.behaviour.replies) == (number, 0)
    assert found.operations is None


def test_a_benchmark_of_faults_alone_is_wrong_with_a_bound_of_one() -> None:
    asked = items(5)
    found = benchmark_report(benchmark([failed(item) for item in asked], asked))
    headline = found.scorings[0].headline
    assert headline is not None
    assert (headline.estimate.value, headline.best) == (0.0, 1.0)
    assert found.behaviour.calls is None


def test_one_cluster_has_no_interval() -> None:
    asked = items(3, in_cluster=3)
    found = benchmark_report(benchmark(every(asked, lambda n: float(n > 0), lambda _: 0), asked))
    headline = found.scorings[0].headline
    assert headline is not None
    assert headline.estimate.value == pytest.approx(2 / 3)
    assert headline.estimate.low is None
    assert headline.clusters == 1


def test_operations_of_the_code_are_counted() -> None:
    asked = items(4)
    found = benchmark_report(benchmark(every(asked, lambda _: 1.0, lambda n: int(n > 0)), asked)).operations
    assert found is not None
    assert (found.replies, found.with_code.count, found.not_analysed) == (4, 3, 0)
    assert {row.category: row.count for row in found.categories}["crop"] == 3


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    asked = items(6)
    answers = every(asked, lambda n: float(n > 2), lambda n: n % 2)
    answers[0] = failed(asked[0], reason="broken \ud800 half")
    report = evaluation_report("tiny", [benchmark(answers, asked)], notes=["a note"])
    write_report(report, tmp_path / "report.json")
    found = read_report(tmp_path / "report.json")
    assert found == report or found.benchmarks[0].denominator.reasons != report.benchmarks[0].denominator.reasons
    assert found.schema_version == 1
    assert found.benchmarks[0].scorings == report.benchmarks[0].scorings


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "schema_version is None"),
        ("{", "no report"),
        ('{"schema_version": 2}', "reads up to 1"),
        ('{"schema_version": 1, "model": 3}', "no report of codedance eval"),
    ],
)
def test_what_is_no_report_is_refused_in_one_line(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(UserError, match=said) as caught:
        read_report(tmp_path / "report.json")
    assert "\n" not in str(caught.value)


def run(
    folder: Path, right: str, control: str = "", max_turns: int = 10, model: str = "tiny", task: str = "vstar"
) -> Path:
    """Output folder of a run over as many items as there are signs."""
    replies = task_of(task).replies_of or task
    of, asked = key(replies, control, max_turns, model), items(len(right), task)
    open_store(folder / replies, of)
    answers = every(asked, lambda n: float(right[n]), lambda _: 0)
    write_scores(folder, scores_of(task_of(task), of, answers, items=asked))
    return folder


def test_a_second_rule_for_the_same_replies_finds_their_key(tmp_path: Path) -> None:
    asked = items(2, "mathvista_corrected")
    answers = every(asked, lambda _: 1.0, lambda _: 0)
    own = benchmark(answers, asked, "mathvista_corrected", key("mathvista"))
    other = run(tmp_path / "off", "10", control="no_tools", task="mathvista_corrected")
    tools = evaluation_report("tiny", [own], [other]).benchmarks[0].tools
    assert tools is not None and tools.effect is not None
    assert tools.effect.gain.value == 0.5


def test_runs_under_controls_give_the_effect_of_tools(tmp_path: Path) -> None:
    others = [
        run(tmp_path / "off", "0110", control="no_tools"),
        run(tmp_path / "blank", "0000", control="blank"),
        run(tmp_path / "short", "0100", max_turns=1),
    ]
    asked = items(4)
    own = benchmark(every(asked, lambda n: float("1101"[n]), lambda n: int("1000"[n])), asked)
    tools = evaluation_report("tiny", [own], others).benchmarks[0].tools
    assert tools is not None and tools.effect is not None and tools.calibration is not None
    assert (tools.effect.gain.value, tools.effect.harm.value) == (0.5, 0.25)
    assert tools.effect.gain_by_call.value == 0.25
    assert [row.control for row in tools.controls] == ["no_tools", "blank"]
    assert tools.controls[1].difference.value == -0.75
    assert [(point.max_turns, point.accuracy.value) for point in tools.limits] == [(1, 0.25), (10, 0.75)]


def test_a_run_of_another_model_cannot_stand_beside_this_one(tmp_path: Path) -> None:
    asked = items(2)
    own = benchmark(every(asked, lambda _: 1.0, lambda _: 0), asked)
    other = run(tmp_path / "other", "11", control="no_tools", model="large")
    with pytest.raises(UserError, match="not a run of the same model"):
        evaluation_report("tiny", [own], [other])
    twice = [run(tmp_path / name, "11", control="blank") for name in ("a", "b")]
    with pytest.raises(UserError, match="a second run with blank"):
        evaluation_report("tiny", [own], twice)
    with pytest.raises(UserError, match="no evaluation with scores there"):
        evaluation_report("tiny", [own], [tmp_path / "nothing"])


def test_every_number_of_a_report_is_json(tmp_path: Path) -> None:
    asked = items(3, in_cluster=3)
    report = evaluation_report("tiny", [benchmark(every(asked, lambda _: 1.0, lambda _: 1), asked)])
    write_report(report, tmp_path / "report.json")
    text = (tmp_path / "report.json").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON number"))
    assert msgspec.convert(json.loads(text), EvaluationReport).model == "tiny"


def test_several_replies_count_as_samples() -> None:
    asked = items(4)
    answers = [measured(item, float(sample), reply(calls=sample), sample) for item in asked for sample in (0, 1)]
    found = benchmark_report(benchmark(answers, asked, of=key(samples=2)))
    headline = found.scorings[0].headline
    assert headline is not None and headline.estimate.value == pytest.approx(0.5)
    assert (found.denominator.samples, found.denominator.answered, found.behaviour.replies) == (2, 8, 8)


def test_shares_of_calls_have_intervals_by_reply_and_calls_apart_are_counted(tmp_path: Path) -> None:
    asked = items(4)
    own = benchmark(every(asked, lambda _: 1.0, lambda _: 1), asked)
    # all calls of a reply alike: worth as much as one call of each
    ran_again(tmp_path, own.key, [[Use.USED] * 5] * 6 + [[Use.UNUSED] * 5] * 4 + [[Use.FAULT, Use.CALCULATION], []])
    write_report(evaluation_report("tiny", [own], out=tmp_path), tmp_path / "report.json")
    report = read_report(tmp_path / "report.json")
    found = report.benchmarks[0].faithfulness
    assert found is not None and report.notes == ()
    assert (found.replies, found.drawn, found.faults, found.with_class, found.calls) == (40, 12, 1, 10, 50)
    assert {row.use: row.calls for row in found.classes} == {"used": 30, "unused": 20, "decorative": 0, "hard_coded": 0}
    used, none = found.classes[0].share, found.classes[2].share
    assert used.value == pytest.approx(0.6) and none.value == 0.0
    by_call, by_reply = wilson(30, 50), wilson(6, 10)
    assert used.low is not None and used.high is not None and none.high is not None
    assert used.low < by_reply.low + 0.02 < by_call.low and used.high > by_reply.high - 0.02 > by_call.high
    assert none.high > wilson(0, 10).high
    assert found.apart == {"calculation": 1, "fault": 1} and found.evidence == {"code": 50}


def test_findings_without_a_class_or_on_other_replies_are_no_shares(tmp_path: Path) -> None:
    asked = items(2)
    own = benchmark(every(asked, lambda _: 1.0, lambda _: 1), asked)
    assert evaluation_report("tiny", [own], out=tmp_path).benchmarks[0].faithfulness is None
    ran_again(tmp_path / "faults", own.key, [[Use.FAULT], []])
    faults = evaluation_report("tiny", [own], out=tmp_path / "faults").benchmarks[0].faithfulness
    assert faults is not None and faults.calls == 0 and faults.classes[0].share.value is None
    ran_again(tmp_path / "other", key(max_turns=3), [[Use.USED]])
    (tmp_path / "broken/faithfulness").mkdir(parents=True)
    (tmp_path / "broken/faithfulness/vstar.json").write_text("{")
    for name, said in (("other", "is of replies under other settings"), ("broken", "cannot be read")):
        report = evaluation_report("tiny", [own], out=tmp_path / name)
        assert report.benchmarks[0].faithfulness is None
        assert len(report.notes) == 1 and said in report.notes[0] and "\n" not in report.notes[0]


def test_files_of_a_run_have_the_findings_of_its_folder(tmp_path: Path) -> None:
    asked = items(2)
    own = benchmark(every(asked, lambda _: 1.0, lambda _: 1), asked)
    ran_again(tmp_path, own.key, [[Use.USED], [Use.DECORATIVE]])
    write_files(tmp_path, "tiny", [own])
    found = read_report(tmp_path / "report.json").benchmarks[0].faithfulness
    assert found is not None and [row.calls for row in found.classes] == [1, 0, 1, 0]
    assert "Faithfulness of calls" in (tmp_path / "report.html").read_text()
    rows = [line for line in (tmp_path / "model_card.md").read_text().splitlines() if "decorative" in line]
    assert len(rows) == 1 and "| 50.0 % (" in rows[0] and rows[0].endswith(" | 1 of 2 |")
