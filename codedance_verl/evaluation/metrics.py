"""Figures of a test set: accuracies, tool use and form by group of questions; gain of RL; the blank-image control."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from codedance_verl.evaluation.intervals import Counts, mean_rate_interval, paired_gain
from codedance_verl.evaluation.outcomes import EvaluationRun, Outcome
from codedance_verl.evaluation.report import (
    BlankFigures,
    BlankGroups,
    Excluded,
    Figure,
    Gain,
    GroupFigures,
    GroupGain,
    RlFigures,
    SftFigures,
)
from codedance_verl.types import Verdict

SAMPLED, GREEDY, BLANK = "sampled", "greedy", "blank"

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


def sft_figures(run: EvaluationRun) -> SftFigures:
    """All figures of one model."""
    runs = [run.outcomes]
    return SftFigures(
        overall=_group(runs, _everything),
        easy=_group(runs, _of_difficulty("easy")),
        hard=_group(runs, _of_difficulty("hard")),
        kinds={kind: _group(runs, _of_kind(kind)) for kind in _kinds(runs)},
        excluded=_excluded([run]),
    )


def rl_figures(evaluations: Sequence[EvaluationRun], seeds: Sequence[int]) -> RlFigures:
    """All figures, each the mean over one run per seed."""
    runs = [run.outcomes for run in evaluations]
    return RlFigures(
        seeds=tuple(seeds),
        overall=_group(runs, _everything),
        easy=_group(runs, _of_difficulty("easy")),
        hard=_group(runs, _of_difficulty("hard")),
        kinds={kind: _group(runs, _of_kind(kind)) for kind in _kinds(runs)},
        excluded=_excluded(evaluations),
    )


def gain(before: EvaluationRun, after: Sequence[EvaluationRun]) -> Gain:
    """RL minus SFT over the questions that SFT and every RL seed have."""
    old, new = [before.outcomes], [run.outcomes for run in after]

    def group(choose: Choose) -> GroupGain:
        return GroupGain(_difference(new, old, SAMPLED, choose), _difference(new, old, GREEDY, choose))

    return Gain(
        overall=group(_everything),
        easy=group(_of_difficulty("easy")),
        hard=group(_of_difficulty("hard")),
        kinds={kind: group(_of_kind(kind)) for kind in _kinds([*old, *new])},
    )


def blank_control(evaluations: Sequence[EvaluationRun]) -> BlankGroups:
    """Sampled accuracy on plain images beside that on the real ones of the same questions."""
    runs = [run.outcomes for run in evaluations]
    # Only questions that were asked both ways are compared.
    blanked = {outcome.record_id for run in runs for outcome in run if outcome.variant == BLANK}

    def group(choose: Choose) -> BlankFigures:
        return BlankFigures(
            blank=figure(runs, ACCURACY, BLANK, choose),
            real=figure(runs, ACCURACY, SAMPLED, lambda outcome: outcome.record_id in blanked and choose(outcome)),
        )

    return BlankGroups(
        overall=group(_everything),
        easy=group(_of_difficulty("easy")),
        hard=group(_of_difficulty("hard")),
        kinds={kind: group(_of_kind(kind)) for kind in _kinds(runs)},
    )


def figure(runs: Runs, measure: Measure, variant: str, choose: Choose) -> Figure:
    """One measure over the chosen rollouts of a variant: mean over the runs of their rates, with its interval."""
    counts = _counts(runs, measure, variant, choose, _questions(runs, variant, choose))
    observations = int(counts.denominators.sum())
    per_run = tuple(_known(rate) for rate in counts.rates())
    # A run without an observation has no rate, and must not pull the mean towards zero.
    known = [rate for rate in per_run if rate is not None]
    if not known:
        return Figure(None, None, None, 0, per_run if len(runs) > 1 else ())
    interval = mean_rate_interval(counts, proportion=measure.proportion)
    return Figure(
        value=sum(known) / len(known),
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        n=observations,
        per_seed=per_run if len(runs) > 1 else (),
    )


def accuracy_difference(after: Runs, before: Runs) -> Figure:
    """Sampled accuracy of one method minus that of another, over the questions that every run of both has."""
    return _difference(after, before, SAMPLED, _everything)


def _difference(after: Runs, before: Runs, variant: str, choose: Choose) -> Figure:
    questions = _questions([*after, *before], variant, choose)
    result = paired_gain(
        _counts(after, ACCURACY, variant, choose, questions), _counts(before, ACCURACY, variant, choose, questions)
    )
    if result is None:
        return Figure(None, None, None, 0)
    value, interval, paired = result
    return Figure(value, interval.low if interval else None, interval.high if interval else None, paired)


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


def _kinds(runs: Runs) -> list[str]:
    return sorted({outcome.kind for run in runs for outcome in run})


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


def _everything(_: Outcome) -> bool:
    return True


def _of_difficulty(difficulty: str) -> Choose:
    return lambda outcome: outcome.difficulty == difficulty


def _of_kind(kind: str) -> Choose:
    return lambda outcome: outcome.kind == kind


def _known(rate: float) -> float | None:
    return None if np.isnan(rate) else float(rate)
