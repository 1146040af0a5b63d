from __future__ import annotations

import numpy as np
import pytest

from codedance_verl.reward.encoding import decode_rewards, encode_rewards
from codedance_verl.types import RewardTerms


def terms(score: float, *turns: float, masked: bool = False) -> RewardTerms:
    return RewardTerms(accuracy=0, format=0, difficulty=0, sequence=0, score=score, turns=turns, masked=masked)


def test_where_the_rewards_stand() -> None:
    encoded = encode_rewards([(0, 2), (3, 6)], terms(1.5, -0.5, 0.0), 8)
    assert encoded.dtype == np.float32
    assert encoded.tolist() == [0, -0.5, 0, 0, 0, 1.5, 0, 0]


def test_masked_and_empty_trajectories_carry_nothing() -> None:
    assert not encode_rewards([(0, 3)], terms(1, 0, masked=True), 4).any()
    assert not encode_rewards([], terms(0), 1).any()
    assert not encode_rewards([(0, 0)], terms(1, 0), 1).any()


@pytest.mark.parametrize("spans", [[(0, 2), (2, 4)], [(0, 3), (2, 5)], [(0, 2), (3, 9)], [(4, 6), (0, 2)]])
def test_spans_that_cannot_be_told_apart_are_refused(spans: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="must begin at"):
        encode_rewards(spans, terms(1, 0, 0), 8)


def test_one_reward_for_each_turn() -> None:
    with pytest.raises(ValueError, match="1 turns came with 2 turn rewards"):
        encode_rewards([(0, 2)], terms(1, 0, 0), 8)


def test_decoding_gives_back_what_was_encoded_on_a_ragged_batch() -> None:
    rows = [
        ([(0, 2), (3, 6), (8, 9)], terms(1.25, -0.5, 0.0, 0.0)),
        ([(0, 1)], terms(-0.2, 0.0)),
        ([(0, 4), (5, 10)], terms(0.0, -0.5, 0.0)),
        ([(0, 4)], terms(1.0, 0.0, masked=True)),
    ]
    rewards, mask = np.zeros((4, 10), np.float32), np.zeros((4, 10), np.int64)
    for row, (spans, reward) in enumerate(rows):
        rewards[row] = encode_rewards(spans, reward, 10)
        for start, end in spans:
            mask[row, start:end] = 0 if reward.masked else 1
    decoded = decode_rewards(rewards, mask)
    assert decoded.score.tolist() == pytest.approx([1.25, -0.2, 0.0, 0.0])
    assert decoded.turn_reward.tolist() == [[-0.5, 0, 0], [0, 0, 0], [-0.5, 0, 0], [0, 0, 0]]
    assert decoded.turn_count.tolist() == [3, 1, 2, 0]
    on_tokens = decoded.on_tokens(np.array([[1, 2, 3]] * 4))
    assert on_tokens.dtype == np.float32
    assert on_tokens[0].tolist() == [1, 1, 0, 2, 2, 2, 0, 0, 3, 0]
    assert on_tokens[2].tolist() == [1, 1, 1, 1, 0, 2, 2, 2, 2, 2]
    assert not on_tokens[3].any()


def test_decoding_a_batch_without_any_turn() -> None:
    decoded = decode_rewards(np.zeros((2, 3)), np.zeros((2, 3), np.int64))
    assert decoded.turn_count.tolist() == [0, 0]
    assert decoded.turn_reward.shape == (2, 1)
    assert not decoded.on_tokens(np.ones((2, 1))).any()


def test_a_turn_that_fills_its_row_ends_there() -> None:
    decoded = decode_rewards(np.array([[0, 0, 1.5], [0, 0, 0.5]]), np.ones((2, 3), np.int64))
    assert decoded.turn_count.tolist() == [1, 1]
    assert decoded.score.tolist() == [1.5, 0.5]
    assert decoded.on_tokens(np.array([[1], [2]])).tolist() == [[1, 1, 1], [2, 2, 2]]
