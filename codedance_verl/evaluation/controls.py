"""Controls: the same questions with returned images greyed out, without tools, with a forced call, or without image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from codedance_verl.data.conditions import BLANK, FORCED_TOOLS, GREEDY, GREY, NO_TOOLS, SAMPLED
from codedance_verl.evaluation.effects import ControlFigures, GreedyGain, GroupControls, LookAlikes, PairFigures, Rates
from codedance_verl.evaluation.figures import Figure, Groups
from codedance_verl.evaluation.metrics import (
    ACCURACY,
    TOOL_RATE,
    Choose,
    Runs,
    accuracy_difference,
    figure,
    grouped,
    rate_counts,
)
from codedance_verl.evaluation.outcomes import EvaluationRun, Outcome, Question
from codedance_verl.statistics.intervals import Counts, Interval, product_interval

_REFERENCE = {GREY: GREEDY, NO_TOOLS: GREEDY, FORCED_TOOLS: GREEDY, BLANK: SAMPLED}
"""Controls, and the variant of the same question that each is compared with."""

_CLOSED = 0.5
"""Answers of a kind are a closed set where they are at most this many for each question."""


def greedy_gain(before: EvaluationRun, after: Sequence[EvaluationRun]) -> GreedyGain:
    """Greedy accuracy of RL minus that of SFT, over the questions that SFT and every seed have a verdict on."""
    old, new = [before.outcomes], [run.outcomes for run in after]

    def gain(choose: Choose) -> Figure:
        whole = accuracy_difference(new, old, variant=GREEDY, choose=choose)
        return replace(whole, per_seed=_gain_of_each(new, old, choose))

    groups = grouped([*old, *new], gain)
    return GreedyGain(groups.hard, groups.kinds)


def _gain_of_each(after: Runs, before: Runs, choose: Choose) -> tuple[float | None, ...]:
    """Greedy gain of each run of `after`, over the questions that all runs have: the mean is the gain of all."""
    (new, old), _ = rate_counts([after, before], ACCURACY, GREEDY, choose)
    common = new.observed & old.observed
    if not common.any():
        return (None,) * len(after)
    return tuple(map(float, new.only(common).rates() - old.only(common).rates().mean()))


def controls(evaluations: Sequence[EvaluationRun], chances: Mapping[str, float | None]) -> Groups[GroupControls]:
    """Accuracy and tool rate of one model (a run per seed) under each control.

    `chances`: accuracy of a guess by kind, of `chances`.
    """
    runs = [run.outcomes for run in evaluations]
    compared = {variant: _compared(runs, variant, reference) for variant, reference in _REFERENCE.items()}

    def group(choose: Choose) -> GroupControls:
        def control(variant: str) -> ControlFigures | None:
            def both_ways(outcome: Outcome) -> bool:
                return outcome.record_id in compared[variant] and choose(outcome)

            changed = rates(runs, variant, both_ways)
            if not changed.accuracy.n:
                return None
            return ControlFigures(changed.accuracy, changed.tool_rate, rates(runs, _REFERENCE[variant], both_ways))

        return GroupControls(
            chance=_chance(runs, choose, chances),
            as_is=rates(runs, GREEDY, choose),
            grey=control(GREY),
            no_tools=control(NO_TOOLS),
            forced_tools=control(FORCED_TOOLS),
            blank=control(BLANK),
        )

    return grouped(runs, group)


def rates(runs: Runs, variant: str, choose: Choose) -> Rates:
    """Accuracy and tool rate of the chosen rollouts of a variant."""
    return Rates(figure(runs, ACCURACY, variant, choose), figure(runs, TOOL_RATE, variant, choose))


def chances(questions: Iterable[Question]) -> dict[str, float | None]:
    """Accuracy of a guess by kind: one over the number of different answers in the test file.

    That of a guess which draws from the answers that occur, each as often as any other. None where there are more than
    half as many answers as questions: they are no closed set.
    """
    answers: dict[str, dict[str, str]] = {}
    for question in questions:
        if question.truth is not None:
            # once a question: its variants repeat the answer
            answers.setdefault(question.kind, {})[question.record_id] = question.truth.strip()
    found: dict[str, float | None] = {}
    for kind, truths in answers.items():
        different = len(set(truths.values()))
        # a single answer is a closed set, however few the questions are
        found[kind] = 1 / different if different <= max(1, _CLOSED * len(truths)) else None
    return found


def look_alikes(
    pairs: Sequence[tuple[str, str]], before: EvaluationRun, after: Sequence[EvaluationRun]
) -> tuple[LookAlikes, ...]:
    """Pairs of kinds asked in the same words, (needs code, needs none), that the evaluations have both kinds of."""
    sides = [before.outcomes], [run.outcomes for run in after]
    found = (LookAlikes(*pair, *(_pair_figures(runs, *pair) for runs in sides)) for pair in pairs)
    return tuple(item for item in found if item.rl.called.n and item.rl.not_called.n)


def _pair_figures(runs: Runs, needs_code: str, needs_none: str) -> PairFigures:
    def coded(outcome: Outcome) -> bool:
        return outcome.kind == needs_code

    def uncoded(outcome: Outcome) -> bool:
        return outcome.kind == needs_none

    called = figure(runs, TOOL_RATE, SAMPLED, coded)
    not_called = _complement(figure(runs, TOOL_RATE, SAMPLED, uncoded))
    shares = list(zip(_each(called), _each(not_called), strict=True))
    if any(first is None or second is None for first, second in shares):
        return PairFigures(called, not_called, Figure(None, None, None, 0), None)
    # All pairs of a rollout of either kind: the share with a call in the first and none in the second is the product.
    per_seed = tuple(first * second for first, second in shares if first is not None and second is not None)
    value = sum(per_seed) / len(per_seed)
    interval = _resampled(runs, coded, uncoded) or _product_of_ends(called, not_called, value)
    low, high = interval or (None, None)
    right = Figure(value, low, high, called.n + not_called.n, per_seed if len(runs) > 1 else ())
    return PairFigures(called, not_called, right, ((called.value or 0.0) + (not_called.value or 0.0)) / 2)


def _resampled(runs: Runs, coded: Choose, uncoded: Choose) -> Interval | None:
    ((called,), _), ((other,), _) = (rate_counts([runs], TOOL_RATE, SAMPLED, choose) for choose in (coded, uncoded))
    return product_interval(called, Counts(other.denominators - other.numerators, other.denominators))


def _product_of_ends(called: Figure, not_called: Figure, value: float) -> Interval | None:
    if called.low is None or called.high is None or not_called.low is None or not_called.high is None:
        return None
    # Rates of different seeds may multiply to less or more than their means do.
    return Interval(min(value, called.low * not_called.low), max(value, called.high * not_called.high))


def _each(of: Figure) -> tuple[float | None, ...]:
    """Values of the seeds, or that of the only run."""
    return of.per_seed or (of.value,)


def _complement(of: Figure) -> Figure:
    """The share of the others."""

    def less(value: float | None) -> float | None:
        return None if value is None else 1 - value

    # the ends change places
    return Figure(less(of.value), less(of.high), less(of.low), of.n, tuple(map(less, of.per_seed)))


def _compared(runs: Runs, variant: str, reference: str) -> set[str]:
    """Questions that every run has a verdict on in both variants."""
    sides = [
        {outcome.record_id for outcome in run if outcome.variant == name and outcome.judged}
        for run in runs
        for name in (variant, reference)
    ]
    return set.intersection(*sides)


def _chance(runs: Runs, choose: Choose, by_kind: Mapping[str, float | None]) -> float | None:
    """Mean of the kinds' chances over the chosen greedy questions; None where that of a kind is not known."""
    kinds = {item.record_id: item.kind for run in runs for item in run if item.variant == GREEDY and choose(item)}
    counted = Counter(kinds.values())
    known = {kind: chance for kind in counted if (chance := by_kind.get(kind)) is not None}
    if not counted or len(known) < len(counted):
        return None
    return sum(known[kind] * number for kind, number in counted.items()) / counted.total()
