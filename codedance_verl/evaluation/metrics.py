"""Figures of a test set: accuracies, tool use and form by group of questions; gain of RL; the blank-image control."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np

from codedance_verl.data.conditions import BLANK, GREEDY, SAMPLED
from codedance_verl.evaluation.outcomes import EvaluationRun, Outcome
from codedance_verl.evaluation.report import (
    BlankFigures,
    Excluded,
    Figure,
    Gain,
    GroupFigures,
    GroupGain,
    Groups,
    RlFigures,
    SftFigures,
)
from codedance_verl.statistics.intervals import Counts, mean_rate_interval, paired_gain
from codedance_verl.types import Verdict

Runs = Sequence[Sequence[Outcome]]
"""Outcomes of several runs of one method (one per seed), infrastructure faults still among them."""


@dataclass(frozen=True)
class Measure:
    """Numerator and denominator that one rollout adds to a rate."""

    counts: Callable[[Outcome], tuple[float, float]]
    proportion: bool = True


def _correct(outcome: Outcome) -> tuple[float, float]:
    return float(outcome.verdict is Verdict.CORRECT), float(outcome.verdict is not Verdict.UNGRADED)


ACCURACY = Measure(_correct)
TOOL_RATE = Measure(lambda outcome: (float(outcome.executed > 0), 1.0))
TURNS = Measure(lambda outcome: (float(outcome.turns), 1.0), proportion=False)
EXECUTION_SUCCESS = Measure(lambda outcome: (float(outcome.succeeded), float(outcome.executed)))
FORMAT = Measure(lambda outcome: (float(outcome.well_formed), 1.0))

Choose = Callable[[Outcome], bool]
_Figures = TypeVar("_Figures")


def sft_figures(run: EvaluationRun) -> SftFigures:
    """All figures of one model."""
    runs = [run.outcomes]
    return SftFigures(**vars(grouped(runs, partial(_group, runs))), excluded=_excluded([run]))


def rl_figures(evaluations: Sequence[EvaluationRun], seeds: Sequence[int]) -> RlFigures:
    """All figures, each the mean over one run per seed."""
    runs = [run.outcomes for run in evaluations]
    groups = grouped(runs, partial(_group, runs))
    return RlFigures(seeds=tuple(seeds), **vars(groups), excluded=_excluded(evaluations))


def gain(before: EvaluationRun, after: Sequence[EvaluationRun]) -> Gain:
    """RL minus SFT over the questions that SFT and every RL seed have."""
    old, new = [before.outcomes], [run.outcomes for run in after]

    def group(choose: Choose) -> GroupGain:
        differences = (accuracy_difference(new, old, variant=name, choose=choose) for name in (SAMPLED, GREEDY))
        return GroupGain(*differences)

    return grouped([*old, *new], group)


def blank_control(evaluations: Sequence[EvaluationRun]) -> Groups[BlankFigures]:
    """Sampled accuracy on plain images beside that on the real ones of the same questions."""
    runs = [run.outcomes for run in evaluations]
    # Only questions that were asked both ways are compared.
    blanked = {outcome.record_id for run in runs for outcome in run if outcome.variant == BLANK}

    def group(choose: Choose) -> BlankFigures:
        return BlankFigures(
            blank=figure(runs, ACCURACY, BLANK, choose),
            real=figure(runs, ACCURACY, SAMPLED, lambda outcome: outcome.record_id in blanked and choose(outcome)),
        )

    return grouped(runs, group)


def figure(runs: Runs, measure: Measure, variant: str, choose: Choose) -> Figure:
    """One measure over the chosen rollouts of a variant: mean over the runs of their rates, with its interval."""
    counts = _counts(runs, measure, variant, choose, _questions(runs, variant, choose))
    per_run = tuple(None if np.isnan(rate) else float(rate) for rate in counts.rates())
    # A run without an observation has no rate, and must not pull the mean towards zero.
    known = [rate for rate in per_run if rate is not None]
    low, high = mean_rate_interval(counts, proportion=measure.proportion) or (None, None)
    value = sum(known) / len(known) if known else None
    return Figure(value, low, high, int(counts.denominators.sum()), per_run if len(runs) > 1 else ())


def accuracy_difference(
    after: Runs, before: Runs, *, variant: str = SAMPLED, choose: Choose = lambda _: True
) -> Figure:
    """Accuracy of one method minus that of another, over the chosen questions that every run of both has."""
    questions = _questions([*after, *before], variant, choose)
    result = paired_gain(
        _counts(after, ACCURACY, variant, choose, questions), _counts(before, ACCURACY, variant, choose, questions)
    )
    if result is None:
        return Figure(None, None, None, 0)
    value, interval, paired = result
    low, high = interval or (None, None)
    return Figure(value, low, high, paired)


def rate_counts(
    methods: Sequence[Runs], measure: Measure, variant: str, choose: Choose
) -> tuple[list[Counts], list[str]]:
    """Numerators and denominators of several methods over the chosen questions of all, and these questions in order."""
    questions = _questions([run for runs in methods for run in runs], variant, choose)
    return [_counts(runs, measure, variant, choose, questions) for runs in methods], questions


def grouped(runs: Runs, figures: Callable[[Choose], _Figures]) -> Groups[_Figures]:
    """The figures of all questions, of each difficulty, and of each kind that the runs have."""

    def of(field: str, value: str) -> _Figures:
        return figures(lambda outcome: getattr(outcome, field) == value)

    kinds = {kind: of("kind", kind) for kind in sorted({outcome.kind for run in runs for outcome in run})}
    return Groups(figures(lambda _: True), of("difficulty", "easy"), of("difficulty", "hard"), kinds)


def _group(runs: Runs, choose: Choose) -> GroupFigures:
    def sampled(measure: Measure) -> Figure:
        return figure(runs, measure, SAMPLED, choose)

    return GroupFigures(
        questions=len(_questions(runs, SAMPLED, choose)),
        accuracy=sampled(ACCURACY),
        accuracy_greedy=figure(runs, ACCURACY, GREEDY, choose),
        tool_rate=sampled(TOOL_RATE),
        turns=sampled(TURNS),
        execution_success=sampled(EXECUTION_SUCCESS),
        format=sampled(FORMAT),
    )


def _counts(runs: Runs, measure: Measure, variant: str, choose: Choose, questions: Sequence[str]) -> Counts:
    column = {question: index for index, question in enumerate(questions)}
    numerators, denominators = np.zeros((2, len(runs), len(questions)))  # float64 [runs, questions] each
    for row, outcomes in enumerate(runs):
        for outcome in outcomes:
            if _counted(outcome, variant) and choose(outcome):
                numerator, denominator = measure.counts(outcome)
                # an observation outside the denominator (an ungraded answer) must not reach the numerator either
                numerators[row, column[outcome.record_id]] += numerator if denominator else 0.0
                denominators[row, column[outcome.record_id]] += denominator
    return Counts(numerators, denominators)


def _questions(runs: Runs, variant: str, choose: Choose) -> list[str]:
    return sorted({item.record_id for run in runs for item in run if _counted(item, variant) and choose(item)})


def _counted(outcome: Outcome, variant: str) -> bool:
    return outcome.variant == variant and not outcome.infrastructure


def _excluded(evaluations: Sequence[EvaluationRun]) -> Excluded:
    outcomes = [outcome for run in evaluations for outcome in run.outcomes]
    missing = sum(len(run.missing) for run in evaluations)
    return Excluded(
        total=len(outcomes) + missing,
        infrastructure=sum(outcome.infrastructure for outcome in outcomes),
        ungraded=sum(outcome.verdict is Verdict.UNGRADED and not outcome.infrastructure for outcome in outcomes),
        missing=missing,
        cut_off=sum(run.cut_off for run in evaluations),
    )
