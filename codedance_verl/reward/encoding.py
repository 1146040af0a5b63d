"""Encoding of a trajectory's rewards as one number per response token, for the way through verl, and its inverse.

verl moves `rm_scores` [batch, response] and `response_mask` (1 on sampled tokens) to the advantage estimator, and
nothing else of ours. So the last token of each assistant turn carries one value: r_k for turn k, and for the last turn,
whose own r_k is 0 by definition, the sequence score. Between two turns there is always a token the model did not
sample, so the turns are the maximal runs of 1 in the mask. A masked rollout is a row whose mask is all 0.

A rollout with a fatal failure (`RewardTerms.valid_turns`) has a mask of 0 from that turn on. Its score stays on the
last token, which the mask then leaves out: a value outside of the mask is what the estimator knows such a row by.

Where a call was drawn again (`redraw.py`), parts of the sampled tokens are not trained: their mask is 0 too. A branch
is known by its first token, which is not trained and is in every other row. A source carries the score of its recovery
on its last trained token, and on its last token of all what is missing from that to its own score.

Both give a meaning to a value outside of the mask, so a run has fatal failures or redrawn calls and not both
(`preflight/layout.py`), and the decoder is given which.

The sum over a row is the score plus the turn rewards: where verl reports it as "reward", that is what it shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from codedance_verl.types import RewardTerms

ZERO_OUTSIDE = 1e-30
"""Score of 0 where it stands outside of the mask: its place has to be seen. Nothing that is added to it changes."""


@dataclass(frozen=True)
class Cut:
    """Place in a response on one side of which nothing is trained.

    Attributes:
        turn: number of the turn in which it lies, from 0.
        token: tokens in front of it.
        recovery: None in a branch, which is trained behind the place; else the score of a source, which is trained in
            front of it.
    """

    turn: int
    token: int
    recovery: float | None = None

    def trained(self, span: tuple[int, int]) -> tuple[int, int]:
        """Returns the part of a half-open span of response tokens that is trained; it may be empty."""
        start, end = span
        if self.recovery is None:
            return max(start, self.token), max(end, self.token)
        return min(start, self.token), min(end, self.token)

    def of_mask(self, mask: Sequence[int]) -> list[int]:
        """Returns a response mask, 1 on sampled tokens, without those that are not trained."""
        start, end = self.trained((0, len(mask)))
        return [value if start <= token < end else 0 for token, value in enumerate(mask)]


def encode_rewards(
    spans: Sequence[tuple[int, int]], terms: RewardTerms, length: int, cut: Cut | None = None
) -> npt.NDArray[np.float32]:
    """Returns the rewards of one trajectory on its response tokens.

    Args:
        spans: half-open span of response tokens of each assistant turn, in order.
        terms: the trajectory's reward; `terms.turns` belongs to `spans`.
        length: number of response tokens.
        cut: of a branch or a source, which has no fatal failure.

    Returns:
        float32 [length], zero except at the last token of each turn; all zero for a masked trajectory. Of the turns
        from a fatal failure on the last alone has a value, the score.

    Raises:
        ValueError: spans and turn rewards differ in number, or spans touch, overlap or leave the response.
    """
    if len(spans) != len(terms.turns):
        raise ValueError(f"{len(spans)} turns came with {len(terms.turns)} turn rewards")
    rewards = np.zeros(length, dtype=np.float32)
    spans = spans if cut is None else [cut.trained(span) for span in spans]
    # a turn without a sampled token has no place for its reward, and no token that could learn from it
    written = [(span, reward) for span, reward in zip(spans, terms.turns, strict=True) if span[1] > span[0]]
    if terms.masked or not written:
        return rewards
    free_from = 0
    for (start, end), reward in written:
        if start < free_from or end > length:
            raise ValueError(f"turn [{start}, {end}) must begin at {free_from} or later and end by {length}")
        rewards[end - 1] = reward
        free_from = end + 1  # one token of feedback at least: without it two turns would be one run of the mask
    # in the place of the last r_k, which is 0 by definition, or that of the call that was drawn again
    rewards[written[-1][0][1] - 1] = terms.score
    if (fatal := fatal_start(spans, terms)) is not None:
        rewards[fatal:] = 0.0
        rewards[written[-1][0][1] - 1] = terms.score or ZERO_OUTSIDE
    if cut is not None and cut.recovery is not None:
        # the call behind the cut has one token at least, so the last one of all is not trained
        rewards[written[-1][0][1] - 1] = cut.recovery
        rewards[length - 1] = terms.score - cut.recovery
    return rewards


def trained_mask(
    mask: Sequence[int], spans: Sequence[tuple[int, int]], terms: RewardTerms, cut: Cut | None = None
) -> list[int]:
    """Returns the response mask of what is trained on: nothing of a masked trajectory, no turn from a fatal one on.

    `mask` has 1 on sampled tokens, the others are as in `encode_rewards`.
    """
    if terms.masked:
        return [0] * len(mask)
    if cut is not None:
        return cut.of_mask(mask)
    fatal = fatal_start(spans, terms)
    return list(mask) if fatal is None else [*mask[:fatal], *[0] * (len(mask) - fatal)]


def fatal_start(spans: Sequence[tuple[int, int]], terms: RewardTerms) -> int | None:
    """Returns the first token of the turn with the fatal failure; None without one."""
    return None if terms.valid_turns is None else spans[terms.valid_turns][0]


def encode_terms(
    terms: Sequence[RewardTerms], cuts: Sequence[Cut | None] | None = None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int8]]:
    """Returns rewards and mask, [B, T], of trajectories as if each turn were two tokens with one of feedback behind it.

    For what does not depend on the lengths of turns; a cut lies between the two tokens of its turn. T is three times
    the most turns.
    """
    length = 3 * max((len(item.turns) for item in terms), default=0)
    rewards = np.zeros((len(terms), length), np.float32)
    mask = np.zeros((len(terms), length), np.int8)
    for row, (item, cut) in enumerate(zip(terms, cuts or [None] * len(terms), strict=True)):
        short = None if cut is None else replace(cut, token=3 * cut.turn + 1)
        spans = [(start, start + 2) for start in range(0, 3 * len(item.turns), 3)]
        own = 3 * len(item.turns)  # what a source lacks stands on its last token, so its row ends with it
        rewards[row, :own] = encode_rewards(spans, item, own, short)
        mask[row, :own] = trained_mask([1, 1, 0] * len(item.turns), spans, item, short)
    return rewards, mask


@dataclass(frozen=True)
class DecodedRewards:
    """Rewards of a batch of B trajectories over T response tokens, with up to K turns each and R in all.

    Attributes:
        score: float64 [B], the sequence score, of a source that of its recovery; 0 where masked.
        drawn_score: float64 [B], the same but for sources, which have their own score here.
        branch: bool [B], True for branches.
        turn_reward: float64 [B, K], r_k; 0 for the last turn and beyond.
        turn_count: int64 [B], turns of each trajectory that are trained on; 0 means masked, unless `fatal`.
        fatal: bool [B], True where turns are left out from a fatal failure on; none of those left is the last then.
        row, turn: int64 [R], which trajectory and which of its turns each is, in order.
        length: int64 [R], sampled tokens of each turn.
        sampled: bool [B, T], True on sampled tokens.
    """

    score: npt.NDArray[np.float64]
    drawn_score: npt.NDArray[np.float64]
    branch: npt.NDArray[np.bool_]
    turn_reward: npt.NDArray[np.float64]
    turn_count: npt.NDArray[np.int64]
    fatal: npt.NDArray[np.bool_]
    row: npt.NDArray[np.int64]
    turn: npt.NDArray[np.int64]
    length: npt.NDArray[np.int64]
    sampled: npt.NDArray[np.bool_]

    @property
    def counted(self) -> npt.NDArray[np.bool_]:
        """Trajectories that enter the statistics of their group, bool [B]."""
        return (self.turn_count > 0) | self.fatal

    @property
    def call_count(self) -> npt.NDArray[np.int64]:
        """Turns but the last, which answers instead of calling, int64 [B]; all those left before a fatal failure."""
        return np.where(self.fatal, self.turn_count, np.maximum(self.turn_count - 1, 0))

    def on_tokens(self, per_turn: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """Returns values of turns, [B, K], on the sampled tokens of each; float32 [B, T], 0 elsewhere."""
        tokens = np.zeros(self.sampled.shape, np.float32)
        # boolean indexing runs row by row, left to right: the order in which `row`, `turn` and `length` list the turns
        tokens[self.sampled] = np.repeat(per_turn[self.row, self.turn].astype(np.float32), self.length)
        return tokens


def decode_rewards(
    rewards: npt.NDArray[np.floating], mask: npt.NDArray[np.integer], *, fatal_turns: bool = False
) -> DecodedRewards:
    """Returns the inverse of `encode_rewards` for a batch: `rewards` and `mask` are [B, T], padded with zeros.

    With `fatal_turns` a value outside of the mask is the score of a rollout with a fatal failure. Without, it is what a
    source lacks of its own score; a row of zeros in the mask was taken out by others, and what it holds is not read.
    """
    rows, width = mask.shape
    sampled = mask != 0
    # one row after the other, each behind a token that was not sampled, so that no turn reaches into the next row;
    # bool [B * (T + 1) + 1], with a False at the end that closes a turn which fills the last row
    line = np.zeros((rows, width + 1), bool)
    line[:, 1:] = sampled
    line = np.append(line, False)
    # first and last token of every turn, int64 [R], as places in `line`: there token t of row b is b (T + 1) + t + 1
    start = np.flatnonzero(line[1:] & ~line[:-1]) + 1
    end = np.flatnonzero(line[:-1] & ~line[1:])
    row = start // (width + 1)
    turn_count = np.bincount(row, minlength=rows)  # [B]
    # number of a turn within its row: its number among all turns less the turns of the rows before
    turn = np.arange(len(row)) - (np.cumsum(turn_count) - turn_count)[row]
    # [B, K], with K at least 1, so that a batch of masked rows has a column too
    values = np.zeros((rows, max(int(turn_count.max(initial=0)), 1)))
    values[row, turn] = rewards[row, end % (width + 1) - 1]
    # [B]; one value of a row at most: a score, or what is missing from one
    outside: npt.NDArray[np.float64] = np.where(sampled, 0.0, rewards).sum(axis=1, dtype=np.float64)
    fatal = (outside != 0) & fatal_turns
    answered = np.flatnonzero((turn_count > 0) & ~fatal)
    last = turn_count[answered] - 1
    # the last value of a row is the score; as r_k of that turn stands 0
    score = np.where(fatal, outside, 0.0)
    score[answered] = values[answered, last]
    values[answered, last] = 0.0
    drawn_score = score if fatal_turns else score + np.where(turn_count > 0, outside, 0.0)
    branch = (turn_count > 0) & ~sampled[:, :1].any(axis=1)
    counts = turn_count.astype(np.int64)
    return DecodedRewards(score, drawn_score, branch, values, counts, fatal, row, turn, end - start + 1, sampled)
