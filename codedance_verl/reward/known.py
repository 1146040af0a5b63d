"""Advantages that a group has by itself, before the batch is known: what the trajectory log can tell of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from codedance_verl.reward.advantage import discounted, group_relative
from codedance_verl.reward.config import RewardConfig, TurnCredit
from codedance_verl.types import RewardTerms


@dataclass(frozen=True)
class Advantage:
    """Of one rollout: `sequence` is S of `reward/advantage.py`, `turns` the advantage A_k of each turn.

    `turns` is None where it rests on the whole batch (`turn_credit: batch_z`), `sequence` where there is none
    (`turn_credit: returns`).
    """

    sequence: float | None
    turns: tuple[float, ...] | None


def group_advantages(terms: Sequence[RewardTerms], config: RewardConfig, *, divide_by_std: bool) -> list[Advantage]:
    """Of every rollout of a group; zeros for a masked one."""
    if config.turn_credit is TurnCredit.RETURNS:
        return _of_returns(terms, config, divide_by_std=divide_by_std)
    counted = np.array([not found.masked for found in terms])
    scores = np.array([found.score for found in terms], np.float64)
    sequence = group_relative(
        scores, [0] * len(terms), counted, divide_by_std=divide_by_std, min_std=config.min_group_std
    )
    return [
        Advantage(float(value), _turns(float(value), found, config))
        for value, found in zip(sequence, terms, strict=True)
    ]


def _turns(sequence: float, terms: RewardTerms, config: RewardConfig) -> tuple[float, ...] | None:
    if terms.masked:
        return (0.0,) * len(terms.turns)
    if config.turn_credit is TurnCredit.BATCH_Z:
        return None
    if config.turn_credit is TurnCredit.NONE:
        return (sequence,) * len(terms.turns)
    returns = discounted(np.array([_immediate(terms)], np.float64), config.turn_discount)[0]
    return tuple(sequence + config.turn_weight * float(value) for value in returns)


def _immediate(terms: RewardTerms) -> list[float]:
    """r_k of each turn; that of the last one is 0, for its token carries the score."""
    return [*terms.turns[:-1], 0.0][: len(terms.turns)]


def _of_returns(terms: Sequence[RewardTerms], config: RewardConfig, *, divide_by_std: bool) -> list[Advantage]:
    flat: list[float] = []
    counted: list[bool] = []
    for found in terms:
        rewards = [*found.turns[:-1], found.score][: len(found.turns)]
        flat += discounted(np.array([rewards], np.float64), config.turn_discount)[0].tolist() if rewards else []
        counted += [not found.masked] * len(rewards)
    values = group_relative(
        np.array(flat, np.float64),
        [0] * len(flat),
        np.array(counted, bool),
        divide_by_std=divide_by_std,
        min_std=config.min_group_std,
    ).tolist()
    taken = iter(values)
    return [Advantage(None, tuple(next(taken) for _ in found.turns)) for found in terms]
