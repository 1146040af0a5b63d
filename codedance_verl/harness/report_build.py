"""Report of an evaluation, built from its scores, replies and keys."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from codedance_verl.evaluation.build import versions
from codedance_verl.harness import behaviour
from codedance_verl.harness.call_shares import faithfulness_on_disk
from codedance_verl.harness.estimate import Estimate
from codedance_verl.harness.figures import OFFICIAL, OURS, NamedHeadline, faults_of, headlines_of, valued
from codedance_verl.harness.measured import Measured
from codedance_verl.harness.operations_count import operations_of
from codedance_verl.harness.published import published
from codedance_verl.harness.report import (
    BenchmarkReport,
    EvaluationReport,
    Faithfulness,
    ReportedFigure,
    Scoring,
    Tools,
)
from codedance_verl.harness.runs_beside import Beside, budget, control_of, format_of, runs_beside
from codedance_verl.harness.scores import TaskScores
from codedance_verl.harness.tool_use import calibration, control_effect, limits_curve, tool_effect, turns_curve
from codedance_verl.records.key import Json, Key
from codedance_verl.tasks.task import Task
from codedance_verl.trajectories.summary import finite

NO_TOOLS = "no_tools"
OUR_RULE = "grader of this project, with its judge where one is set (docs/grading.md)"


@dataclass(frozen=True)
class ScoredBenchmark:
    """Benchmark after scoring.

    Attributes:
        task: the benchmark.
        key: key of its replies.
        scores: scores of all items.
        measured: the same with items and replies, for trajectories and operations; may be empty.
    """

    task: Task
    key: Key
    scores: TaskScores
    measured: Sequence[Measured] = ()


def evaluation_report(
    model: str,
    benchmarks: Sequence[ScoredBenchmark],
    others: Sequence[Path] = (),
    notes: Sequence[str] = (),
    out: Path | None = None,
) -> EvaluationReport:
    """The report of a run.

    Args:
        model: its name.
        benchmarks: in the order of the page.
        others: output folders of runs of the same model under controls, or with other limits of turns.
        notes: lines that a reader must see.
        out: output folder of the run, for findings on its calls; None for a report without these.

    Raises:
        UserError: one of `others` is of another model or revision, or cannot be read.
    """
    found, said = [], list(notes)
    for one in benchmarks:
        beside = runs_beside(one.key, one.scores, others)
        calls, without = (None, "") if out is None else faithfulness_on_disk(out, one.task.name, one.key)
        found.append(benchmark_report(one, beside, calls))
        said += [f"{one.task.name}: {note}" for note in (*beside.notes, without) if note]
    return EvaluationReport(
        model=model,
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        control=next((control for one in benchmarks if (control := control_of(one.key))), ""),
        benchmarks=tuple(found),
        notes=tuple(said),
        versions=versions(),
    )


def benchmark_report(
    found: ScoredBenchmark, beside: Beside | None = None, faithfulness: Faithfulness | None = None
) -> BenchmarkReport:
    """What was measured on one benchmark, with the effect of tools where runs under controls are given."""
    task, scores = found.task, found.scores
    replies = (one.reply for one in found.measured if one.reply is not None)
    return BenchmarkReport(
        task=task.name,
        title=task.title,
        source=task.source,
        revision=scores.revision,
        key=scores.key,
        budget=budget(found.key),
        call_format=format_of(found.key) or "",
        denominator=behaviour.denominator(scores, task.count_note(len(scores.items))),
        scorings=tuple(_scoring(task, scores, which) for which in (OFFICIAL, OURS)),
        published=published(task.name),
        behaviour=behaviour.behaviour(scores),
        tools=tools(scores, beside or Beside()),
        operations=operations_of(replies),
        faithfulness=faithfulness,
    )


def tools(scores: TaskScores, beside: Beside) -> Tools | None:
    """Effect of tools by the grader of this project, else by the official rule; None where nothing was scored."""
    which = OURS if valued(scores.items, scores.samples, OURS) else OFFICIAL
    if not valued(scores.items, scores.samples, which):
        return None
    # one way of scoring for all runs: values by different rules do not compare
    rows = behaviour.answered(scores, which)
    controls = {name: behaviour.answered(other, which) for name, other in beside.controls.items()}
    without = controls.get(NO_TOOLS)
    return Tools(
        which=which,
        effect=None if without is None else tool_effect(rows, without),
        calibration=None if without is None else calibration(rows, without),
        controls=tuple(control_effect(name, rows, other) for name, other in controls.items()),
        turns=turns_curve(rows),
        limits=limits_curve({limit: behaviour.answered(other, which) for limit, other in beside.limits.items()}),
    )


def _scoring(task: Task, scores: TaskScores, which: str) -> Scoring:
    official = which == OFFICIAL
    return Scoring(
        which=which,
        rule=scores.rule if official else OUR_RULE,
        rules_applied=behaviour.rules_applied(scores, which),
        judge=named(scores.judge if official else scores.grader),
        figures=tuple(_figure(named_one) for named_one in headlines_of(task.figures, scores, which)),
        without_score=dict(sorted(faults_of(valued(scores.items, scores.samples, which)).items())),
    )


def _figure(found: NamedHeadline) -> ReportedFigure:
    line, bounds = found.headline, found.headline.bounds
    return ReportedFigure(
        name=found.name,
        definition=found.definition,
        estimate=Estimate.of_rate(line.value),
        best=line.best,
        bounds=Estimate.of(None, bounds),
        items=line.cases,
        clusters=line.value.clusters,
        design_effect=finite(line.design_effect),  # JSON has no NaN
        sentence=line.sentence,
        power=found.power.sentence,
    )


def named(judge: Json) -> str:
    """Judge or grader in words; empty for none."""
    if isinstance(judge, dict):
        return "; ".join(f"{name} {value}" for name, value in judge.items() if value not in (None, "", {}, []))
    return "" if judge is None else str(judge)
