from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest

from codedance_verl.errors import UserError
from codedance_verl.reward.advantage import check_algorithm, token_advantages, turn_z_scores
from codedance_verl.reward.config import RewardConfig
from codedance_verl.reward.encoding import encode_rewards
from codedance_verl.reward.presets import PAPER
from codedance_verl.types import RewardTerms


@dataclass(frozen=True)
class Row:
    """One rollout: its group, token spans, score and turn rewards."""

    group: str
    spans: list[tuple[int, int]]
    score: float
    turns: list[float]
    masked: bool = False


def batch(rows: list[Row], length: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], list[str]]:
    rewards, mask = np.zeros((len(rows), length), np.float32), np.zeros((len(rows), length), np.int64)
    for index, row in enumerate(rows):
        terms = RewardTerms(0, 0, 0, 0, row.score, tuple(row.turns), row.masked)
        rewards[index] = encode_rewards(row.spans, terms, length)
        for start, end in row.spans:
            mask[index, start:end] = not row.masked
    return rewards, mask, [row.group for row in rows]


def batch_z_reference(
    rows: list[Row], length: int, config: RewardConfig, divide_by_std: bool
) -> npt.NDArray[np.float64]:
    """The formulas, one number at a time."""
    scores: dict[str, list[float]] = defaultdict(list)
    returns: list[list[float]] = []
    for row in rows:
        g = [0.0] * len(row.spans)
        for k in reversed(range(len(row.spans) - 1)):
            g[k] = row.turns[k] + config.turn_discount * g[k + 1]
        returns.append(g)
        if not row.masked:
            scores[row.group].append(row.score)
    judged = [value for row, g in zip(rows, returns, strict=True) if not row.masked for value in g[:-1]]
    mean, std = (statistics.fmean(judged), statistics.pstdev(judged)) if judged else (0.0, 0.0)
    result = np.zeros((len(rows), length))
    for index, (row, g) in enumerate(zip(rows, returns, strict=True)):
        group = scores[row.group]
        if row.masked:
            continue
        advantage = row.score - statistics.fmean(group) if len(group) > 1 else 0.0
        if divide_by_std and len(group) > 1:
            spread = statistics.stdev(group)
            advantage = advantage / (spread + 1e-6) if spread > 1e-9 else 0.0
        for k, (start, end) in enumerate(row.spans):
            z = (g[k] - mean) / std if k < len(row.spans) - 1 and std > 1e-9 else 0.0
            result[index, start:end] = advantage + config.turn_weight * z
    return result


def random_rows(rng: np.random.Generator, groups: int, size: int, max_turns: int) -> tuple[list[Row], int]:
    rows = []
    for group in range(groups):
        for _ in range(size):
            spans, position = [], 0
            for _ in range(int(rng.integers(1, max_turns + 1))):
                end = position + int(rng.integers(1, 9))
                spans.append((position, end))
                position = end + int(rng.integers(1, 12))
            turns = [*(float(-0.5 * (rng.random() < 0.3)) for _ in spans[:-1]), 0.0]
            rows.append(Row(f"g{group}", spans, float(rng.normal()), turns, bool(rng.random() < 0.1)))
    return rows, max(row.spans[-1][1] for row in rows) + 3


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("divide_by_std", [True, False])
def test_agrees_with_a_slow_reference_on_ragged_batches(seed: int, divide_by_std: bool) -> None:
    rows, length = random_rows(np.random.default_rng(seed), groups=6, size=5, max_turns=6)
    config = PAPER.replace(turn_discount=0.3 if seed % 2 else 0.2, turn_weight=0.7 if seed % 3 else 0.2)
    got = token_advantages(*batch(rows, length), config, divide_by_std=divide_by_std)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, batch_z_reference(rows, length, config, divide_by_std), atol=1e-5)


def test_discounted_turn_returns_worked_by_hand() -> None:
    """fail, fail, ok -> -0.6, -0.5, 0 and ok, fail -> -0.1, -0.5, each followed by an answer turn."""
    turn_reward = np.array([[-0.5, -0.5, 0, 0], [0, -0.5, 0, 0]])
    z = turn_z_scores(turn_reward, np.array([3, 2]), 0.2)
    g = np.array([-0.6, -0.5, 0, -0.1, -0.5])
    expected = (g - g.mean()) / g.std()
    assert [*z[0, :3], *z[1, :2]] == pytest.approx(expected)
    assert z[0, 3] == 0
    assert (z[1, 2:] == 0).all()


def test_one_failing_turn_in_a_hundred() -> None:
    rows = [Row(f"g{k}", [(0, 2), (3, 5)], 0.0, [-0.5 if k == 0 else 0.0, 0.0]) for k in range(100)]
    advantages = token_advantages(*batch(rows, 6), PAPER)
    assert advantages[0, :2] == pytest.approx([-1.99, -1.99], abs=5e-3)
    assert (advantages[:, 3:] == 0).all()


def test_turns_that_are_all_alike_get_no_turn_credit() -> None:
    rows = [Row("g", [(0, 2), (3, 5)], float(k), [-0.5, 0.0]) for k in range(2)]
    advantages = token_advantages(*batch(rows, 6), PAPER)
    expected = 0.5 / (2**-0.5 + 1e-6)
    assert advantages[1].tolist() == pytest.approx([expected, expected, 0, expected, expected, 0])


def test_a_masked_rollout_changes_nothing_for_the_others() -> None:
    rows = [Row("g", [(0, 2), (3, 5)], score, [turn, 0.0]) for score, turn in ((1.0, 0.0), (0.0, -0.5), (0.5, 0.0))]
    masked = Row("g", [(0, 2), (3, 5)], 9.0, [-0.5, 0.0], masked=True)
    alone = token_advantages(*batch(rows, 6), PAPER)
    beside = token_advantages(*batch([*rows, masked], 6), PAPER)
    np.testing.assert_allclose(beside[:3], alone)
    assert not beside[3].any()


def test_order_of_rows_does_not_matter() -> None:
    rows, length = random_rows(np.random.default_rng(1), groups=4, size=4, max_turns=4)
    order = np.random.default_rng(2).permutation(len(rows))
    straight = token_advantages(*batch(rows, length), PAPER)
    shuffled = token_advantages(*batch([rows[k] for k in order], length), PAPER)
    np.testing.assert_allclose(shuffled, straight[order], atol=1e-6)


def test_groups_without_spread_and_lonely_rollouts_get_no_sequence_credit() -> None:
    rows = [Row("same", [(0, 2)], 0.3, [0.0]), Row("same", [(0, 2)], 0.3, [0.0]), Row("alone", [(0, 2)], 5.0, [0.0])]
    assert not token_advantages(*batch(rows, 3), PAPER).any()


@pytest.mark.timeout(30)  # a fraction of a second, unless it goes through tokens one by one
def test_a_batch_of_real_size_is_no_burden() -> None:
    rows, length = random_rows(np.random.default_rng(0), groups=256, size=8, max_turns=6)
    advantages = token_advantages(*batch(rows, max(length, 2048)), PAPER)
    assert np.isfinite(np.asarray(advantages)).all()


def test_the_constants_stand_in_the_algorithm_node() -> None:
    assert check_algorithm({"codedance": {"turn_weight": 0.5}}).turn_weight == 0.5


@pytest.mark.parametrize(
    ("algorithm", "told"),
    [
        ({}, "algorithm.codedance: no value given"),
        ({"codedance": {"turn_weight": -1}}, "algorithm.codedance.turn_weight=-1: must be"),
        ({"codedance": {}, "use_kl_in_reward": True}, "algorithm.use_kl_in_reward=true"),
        (
            {"codedance": {}, "rollout_correction": {"rollout_rs": "seq_mean_k1,token_k1"}},
            "algorithm.rollout_correction.rollout_rs",
        ),
    ],
)
def test_what_contradicts_the_estimator_is_named(algorithm: dict[str, object], told: str) -> None:
    with pytest.raises(UserError, match=told.replace(".", r"\.")):
        check_algorithm(algorithm)
