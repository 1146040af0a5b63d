"""Effect of tools at each checkpoint: what they win, what they lose, and what changed without them.

The terms are those of MED (arXiv 2602.01334; our reading of its abstract, its project page and its published analysis
code, github.com/GAIR-NLP/Med). Of one question let w be 1 where the greedy answer with tools is right, o where that
without tools is. Then w = o + gain - harm, gain = (1 - o) w, harm = o (1 - w). Means over the same questions keep that,
and so do differences to the start of RL: change of w = drift (change of o) + change of gain - change of harm. MED
splits gain and harm once more by whether a tool was called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from codedance_verl.data.conditions import GREEDY, NO_TOOLS
from codedance_verl.evaluation.effects import Checkpoint, EffectChange, GroupEffect
from codedance_verl.evaluation.figures import Figure, Groups
from codedance_verl.evaluation.outcomes import Outcome, Question
from codedance_verl.statistics.intervals import Array, Counts, mean_rate_interval, paired_gain
from codedance_verl.types import Verdict

Outcomes = Sequence[Outcome]


@dataclass(frozen=True)
class _Answers:
    """Greedy answers of one checkpoint to the same questions, float64 [questions] of 0 and 1 each."""

    accuracy: Array
    accuracy_without: Array
    called: Array

    @property
    def gain(self) -> Array:
        return (1 - self.accuracy_without) * self.accuracy

    @property
    def harm(self) -> Array:
        return self.accuracy_without * (1 - self.accuracy)


class _Greedy:
    """Rollouts of one checkpoint that have a verdict, by question: with tools and without."""

    def __init__(self, outcomes: Outcomes) -> None:
        self.with_tools = _judged(outcomes, GREEDY)
        self.without = _judged(outcomes, NO_TOOLS)


def tool_effect(
    start: Outcomes, seeds: Mapping[int, Mapping[int, Outcomes]], asked: Sequence[Question]
) -> tuple[Checkpoint, ...]:
    """The start of RL, then every validated step of every seed; empty where no question was asked without tools.

    Args:
        start: rollouts of the model that RL starts from.
        seeds: rollouts by seed and validated step.
        asked: rows of the test file.
    """
    groups = _asked_both_ways(asked)
    if not groups.overall:
        return ()

    def checkpoint(seed: int | None, step: int, outcomes: Outcomes) -> Checkpoint:
        sides = [_Greedy(outcomes)] if seed is None else [_Greedy(outcomes), _Greedy(start)]
        return Checkpoint(
            seed,
            step,
            Groups(
                _group(sides, groups.overall),
                _group(sides, groups.easy),
                _group(sides, groups.hard),
                {kind: _group(sides, names) for kind, names in groups.kinds.items()},
            ),
        )

    later = (checkpoint(seed, step, found) for seed, steps in seeds.items() for step, found in sorted(steps.items()))
    return (checkpoint(None, 0, start), *later)


def _asked_both_ways(asked: Sequence[Question]) -> Groups[set[str]]:
    """Names of the questions that the test file has with tools and without, by group."""
    with_tools = {question.record_id for question in asked if question.variant == GREEDY}
    both = [question for question in asked if question.variant == NO_TOOLS and question.record_id in with_tools]

    def named(field: str, value: str) -> set[str]:
        return {item.record_id for item in both if getattr(item, field) == value}

    kinds = {kind: named("kind", kind) for kind in sorted({item.kind for item in both})}
    return Groups({item.record_id for item in both}, named("difficulty", "easy"), named("difficulty", "hard"), kinds)


def _group(sides: Sequence[_Greedy], names: set[str]) -> GroupEffect:
    """Effect at the checkpoint that comes first in `sides`; the second, where there is one, is the start."""
    # The same questions in all four, so that the terms add up whatever is missing.
    questions = sorted(names.intersection(*(found for side in sides for found in (side.with_tools, side.without))))
    now, *then = [_answers(side, questions) for side in sides]
    return GroupEffect(
        questions=len(questions),
        left_out=len(names) - len(questions),
        accuracy=_share(now.accuracy),
        accuracy_without=_share(now.accuracy_without),
        gain=_share(now.gain),
        harm=_share(now.harm),
        gain_by_call=_mean(now.gain * now.called),
        harm_by_call=_mean(now.harm * now.called),
        change=_change(now, then[0]) if then else None,
    )


def _change(now: _Answers, then: _Answers) -> EffectChange:
    return EffectChange(
        accuracy=_difference(now.accuracy, then.accuracy),
        drift=_difference(now.accuracy_without, then.accuracy_without),
        gain=_difference(now.gain, then.gain),
        harm=_difference(now.harm, then.harm),
    )


def _judged(outcomes: Outcomes, variant: str) -> dict[str, Outcome]:
    """The rollout of each question; of several samples the first, as greedy ones are alike."""
    found: dict[str, Outcome] = {}
    for outcome in sorted(outcomes, key=lambda item: item.sample):
        if outcome.variant == variant and outcome.judged:
            found.setdefault(outcome.record_id, outcome)
    return found


def _answers(side: _Greedy, questions: Sequence[str]) -> _Answers:
    def column(values: list[bool]) -> Array:
        return np.array(values, dtype=np.float64)

    return _Answers(
        column([side.with_tools[name].verdict is Verdict.CORRECT for name in questions]),
        column([side.without[name].verdict is Verdict.CORRECT for name in questions]),
        column([side.with_tools[name].executed > 0 for name in questions]),
    )


def _mean(values: Array) -> float | None:
    return float(values.mean()) if values.size else None


def _share(values: Array) -> Figure:
    low, high = (mean_rate_interval(_counts(values), proportion=True) if values.size else None) or (None, None)
    return Figure(_mean(values), low, high, values.size)


def _difference(after: Array, before: Array) -> Figure:
    result = paired_gain(_counts(after), _counts(before)) if after.size else None
    if result is None:
        return Figure(None, None, None, 0)
    value, interval, questions = result
    low, high = interval or (None, None)
    return Figure(value, low, high, questions)


def _counts(values: Array) -> Counts:
    # one run: float64 [1, questions]
    return Counts(values[None, :], np.ones((1, values.size)))
