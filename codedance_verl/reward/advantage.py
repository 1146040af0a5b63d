"""Advantage estimator `codedance_grpo`: group-relative sequence credit, plus credit for each turn on its tokens.

With s the score of a rollout, r_k the reward of its turn k, mean and std over the counted rollouts of its group:

    S = (s - mean) / (max(std, min_group_std) + eps)          without the division where verl's norm_adv_by_std_in_grpo
                                                              is false (Dr. GRPO)
    none      A_k = S
    batch_z   A_k = S + turn_weight z(g_k), g_k = r_k + turn_discount g_{k+1}, z over all turns of the batch but the
              last of each trajectory (CodeDance, turn-level BAT, as in the published code)
    fixed     A_k = S + turn_weight g_k: a failure costs the same whatever else is in the batch
    routed    A_k = S [S g_k >= 0] + turn_weight g_k: a turn has no part in an outcome that its own credit contradicts
              (our reading of outcome-gated routing, TACO, arXiv 2606.30251); the last turn always has S
    returns   A_k = (G_k - mean) / (std + eps), G_k = r_k + turn_discount G_{k+1} with r_K = s, over all turns of the
              group (GTPO, arXiv 2511.14846)

A_k stands on every sampled token of turn k. Masked rollouts get zero and enter no statistic. A rollout with a fatal
failure enters them, has no tokens from that turn on, and S = max(S, 0) (OpenSearch-VL, arXiv 2605.05185). Where a call
was drawn again (`redraw.py`) branches are a group of their own, and a source is compared by the score of its recovery,
in the place of its own, with the rest of its group; the rest are compared with its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from codedance_verl.config.node import one_of
from codedance_verl.errors import UserError
from codedance_verl.reward.config import RewardConfig, TurnCredit
from codedance_verl.reward.encoding import Cut, DecodedRewards, decode_rewards, encode_terms
from codedance_verl.types import RewardTerms

if TYPE_CHECKING:
    import torch

NAME = "codedance_grpo"
NEVER_FED = {"remax", "gdpo", "optimal_token_baseline", "tir_optimal_token_baseline"}
"""Estimators that need fields which the V1 trainer of verl 0.9.1 does not hand over (`_compute_advantage`)."""
CONFIG_KEY = "codedance"
"""Key of the reward's constants below verl's `algorithm` node, the only node that verl hands to an estimator."""

GROUP_STD_EPSILON = 1e-6  # as in verl's GRPO
NO_SPREAD = 1e-9  # a standard deviation below this is rounding, not signal

Floats = npt.NDArray[np.float64]
Groups = Sequence[object] | npt.NDArray[Any]


def token_advantages(
    rewards: npt.NDArray[np.floating],
    mask: npt.NDArray[np.integer],
    groups: Groups,
    config: RewardConfig,
    *,
    divide_by_std: bool = True,
) -> npt.NDArray[np.float32]:
    """Advantage of every response token of a batch.

    Args:
        rewards: [B, T], as `encoding.encode_rewards` wrote them, padded with zeros.
        mask: [B, T], 1 on sampled tokens; a row of zeros is a masked rollout.
        groups: [B], rollouts of one question share a value.
        config: `turn_credit`, `turn_weight`, `turn_discount`, `min_group_std` and `fatal_failures` are read.
        divide_by_std: divide by the group's standard deviation (GRPO) or not (Dr. GRPO).

    Returns:
        float32 [B, T], zero wherever the mask is.
    """
    decoded = decode_rewards(rewards, mask, fatal_turns=config.fatal_failures > 0)
    return decoded.on_tokens(turn_advantages(decoded, groups, config, divide_by_std=divide_by_std))


def turn_advantages(decoded: DecodedRewards, groups: Groups, config: RewardConfig, *, divide_by_std: bool) -> Floats:
    """A_k of every turn, float64 [B, K]; 0 beyond the last turn that is trained on."""
    is_turn = np.arange(decoded.turn_reward.shape[1]) < decoded.turn_count[:, None]  # [B, K]
    values = _with_recovery(decoded, groups, lambda rewards, parted: _turns(rewards, parted, config, divide_by_std))
    return np.where(is_turn, values, 0.0)


def _turns(decoded: DecodedRewards, groups: Groups, config: RewardConfig, divide_by_std: bool) -> Floats:
    """A_k where scores and groups are what they are, float64 [B, K]; values beyond the last turn belong to no token."""
    if config.turn_credit is TurnCredit.RETURNS:
        return _returns_in_group(decoded, groups, config, divide_by_std=divide_by_std)
    term = _turn_term(decoded, config)
    outcome = _sequence(decoded, groups, config, divide_by_std)[:, None]
    if config.turn_credit is TurnCredit.ROUTED:
        outcome = np.where(outcome * term < 0, 0.0, outcome)
    return outcome + config.turn_weight * term


def sequence_advantages(
    decoded: DecodedRewards, groups: Groups, config: RewardConfig, *, divide_by_std: bool
) -> Floats:
    """S of every trajectory, float64 [B]; 0 where masked."""
    return _with_recovery(decoded, groups, lambda rewards, parted: _sequence(rewards, parted, config, divide_by_std))


def _with_recovery(
    decoded: DecodedRewards, groups: Groups, advantages: Callable[[DecodedRewards, Groups], Floats]
) -> Floats:
    """Advantages with branches in groups of their own, and sources by the score of their recovery; float64 [B, ...].

    A group has one source at most, so each is compared with scores as they were drawn.
    """
    parted: Groups = groups
    if decoded.branch.any():
        parted = [f"{group}{' branches' * own}" for group, own in zip(groups, decoded.branch.tolist(), strict=True)]
    drawn = advantages(replace(decoded, score=decoded.drawn_score), parted)
    source = decoded.score != decoded.drawn_score  # [B]
    if not source.any():
        return drawn
    return np.where(source.reshape(-1, *[1] * (drawn.ndim - 1)), advantages(decoded, parted), drawn)


def _sequence(decoded: DecodedRewards, groups: Groups, config: RewardConfig, divide_by_std: bool) -> Floats:
    """S of every trajectory where scores and groups are what they are, float64 [B]."""
    relative = group_relative(
        decoded.score, groups, decoded.counted, divide_by_std=divide_by_std, min_std=config.min_group_std
    )
    # what went before the failure is not blamed for it: it may gain by the score and not lose
    return np.where(decoded.fatal, np.maximum(relative, 0.0), relative)


@dataclass(frozen=True)
class Advantage:
    """Advantage of one rollout: `sequence` is S, `turns` the A_k of each turn.

    `turns` is None where it rests on the whole batch (`turn_credit: batch_z`), `sequence` where there is none
    (`turn_credit: returns`). A masked rollout has zeros.
    """

    sequence: float | None
    turns: tuple[float, ...] | None


def group_advantages(
    terms: Sequence[RewardTerms],
    config: RewardConfig,
    *,
    divide_by_std: bool,
    cuts: Sequence[Cut | None] | None = None,
) -> list[Advantage]:
    """Advantages of a group by itself, before its batch is complete, in the order of `terms`.

    Takes the path of training: encoding, decoding, `turn_advantages`. Advantages do not depend on the lengths of turns,
    so short turns stand for the real ones. `cuts` are those of branches and sources; a turn that they leave out whole
    has the advantage 0.
    """
    cuts = cuts or [None] * len(terms)
    decoded = decode_rewards(*encode_terms(terms, cuts), fatal_turns=config.fatal_failures > 0)
    one_group = [0] * len(terms)
    sequence = sequence_advantages(decoded, one_group, config, divide_by_std=divide_by_std)  # [B]
    per_turn = turn_advantages(decoded, one_group, config, divide_by_std=divide_by_std)  # [B, K]
    has_sequence = config.turn_credit is not TurnCredit.RETURNS
    return [
        Advantage(
            float(sequence[row]) if has_sequence else None,
            None
            if config.turn_credit is TurnCredit.BATCH_Z and not item.masked
            else of_turns(item, per_turn[row], cut),
        )
        for row, (item, cut) in enumerate(zip(terms, cuts, strict=True))
    ]


def of_turns(terms: RewardTerms, per_turn: Floats, cut: Cut | None = None) -> tuple[float, ...]:
    """A_k of all turns of a rollout out of a row of `turn_advantages`, [K], which has those that are trained."""
    if terms.masked:
        return (0.0,) * len(terms.turns)  # none of its turns was encoded: K may be less
    turns = len(terms.turns)
    before = cut.turn if cut is not None and cut.recovery is None else 0
    trained = cut.turn + 1 if cut is not None and cut.recovery is not None else turns - before
    # K may be less: of turns from a fatal failure on none was decoded, and their advantage is 0
    values = [float(value) for value in per_turn[:trained]]
    return (*[0.0] * before, *values, *[0.0] * (turns - before - len(values)))


def _turn_term(decoded: DecodedRewards, config: RewardConfig) -> Floats:
    """The turn-level term before its weight, float64 [B, K]; zeros without turn credit."""
    match config.turn_credit:
        case TurnCredit.BATCH_Z:
            return turn_z_scores(decoded.turn_reward, decoded.call_count, config.turn_discount)
        case TurnCredit.FIXED | TurnCredit.ROUTED:
            return discounted(decoded.turn_reward, config.turn_discount)
        case _:
            return np.zeros_like(decoded.turn_reward)


def _returns_in_group(decoded: DecodedRewards, groups: Groups, config: RewardConfig, *, divide_by_std: bool) -> Floats:
    """(G_k - mean) / std over the turns of a group, float64 [B, K]."""
    rewards = decoded.turn_reward.copy()  # [B, K]
    rows = np.flatnonzero(decoded.turn_count)
    # r_K = s: the last turn, whose own reward is 0 by definition, ends with the score of the sequence
    rewards[rows, decoded.turn_count[rows] - 1] = decoded.score[rows]
    returns = discounted(rewards, config.turn_discount)
    is_turn = np.arange(returns.shape[1]) < decoded.turn_count[:, None]  # [B, K], False for padding and masked rows
    # every turn is an entry of its own, [B * K], under the group of its trajectory: long rollouts weigh more
    of_turn = np.repeat(np.asarray(groups).astype(str), returns.shape[1])
    normalised = group_relative(
        returns.ravel(), of_turn, is_turn.ravel(), divide_by_std=divide_by_std, min_std=config.min_group_std
    )
    return normalised.reshape(returns.shape)


def discounted(rewards: Floats, discount: float) -> Floats:
    """g_k = r_k + discount g_{k+1} along the last axis; float64 [B, K]."""
    returns = rewards.copy()
    # backwards, as each return needs the next one; padding behind the last turn is 0 and adds nothing
    for k in range(returns.shape[1] - 2, -1, -1):
        returns[:, k] += discount * returns[:, k + 1]
    return returns


def group_relative(
    scores: Floats, groups: Groups, counted: npt.NDArray[np.bool_], *, divide_by_std: bool, min_std: float = 0.0
) -> Floats:
    """Score minus the mean of the group's counted entries, over their sample standard deviation if asked; float64 [B].

    Zero for entries that are not counted, and for one that is alone in its group: it has nothing to be compared with.
    `min_std` is the least that is divided by: without it a group whose rollouts differ by one call alone would get
    advantages as large as one in which some are right and some are wrong.
    """
    # member_of [B]: group number 0 to G - 1 of each entry; as text, for verl's uids come as an array of objects
    _, member_of = np.unique(np.asarray(groups).astype(str), return_inverse=True)
    size = np.bincount(member_of, weights=counted)  # [G]
    total = np.bincount(member_of, weights=np.where(counted, scores, 0.0))  # [G]
    mean = (total / np.maximum(size, 1))[member_of]  # [B]; an empty group has total 0, so mean 0
    centred = np.where(counted & (size[member_of] > 1), scores - mean, 0.0)
    if not divide_by_std:
        return centred
    # N - 1 as torch.std in verl's GRPO; centred is 0 where an entry is not counted, so these add nothing
    variance = np.bincount(member_of, weights=centred**2) / np.maximum(size - 1, 1)
    std = np.sqrt(variance)[member_of]
    return np.where(std > NO_SPREAD, centred / (np.maximum(std, min_std) + GROUP_STD_EPSILON), 0.0)


def turn_z_scores(turn_reward: Floats, call_count: npt.NDArray[np.int64], discount: float) -> Floats:
    """z(g_k) of the turns before the last of each trajectory, `call_count` of them, 0 elsewhere; [B, K].

    The population's mean and standard deviation are taken over the whole batch; without spread every z is 0.
    """
    returns = discounted(turn_reward, discount)
    # [B, K]; the last turn answers instead of calling, and a masked row has a count of 0, so none of it is judged
    judged = np.arange(returns.shape[1]) < call_count[:, None]
    values = returns[judged]
    if values.size == 0 or values.std() < NO_SPREAD:
        return np.zeros_like(returns)
    return np.where(judged, (returns - values.mean()) / values.std(), 0.0)


def check_estimator(algorithm: Mapping[str, Any], preset: RewardConfig) -> None:
    """Checks verl's `algorithm` node against the reward preset before a run.

    Every other estimator of verl adds token rewards up (`terms.turn_rewards_summed`), without a place for returns of
    the group.

    Raises:
        UserError: names the dotted key and the cure.
    """
    from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY

    key, name = "algorithm.adv_estimator", algorithm["adv_estimator"]
    if name in NEVER_FED:
        raise UserError(
            f"{key}={name}: verl's V1 trainer does not hand over what it needs; {NAME}, grpo, rloo and others take "
            "rewards alone"
        )
    one_of(sorted({NAME, *ADV_ESTIMATOR_REGISTRY} - NEVER_FED)).check(name, key)
    if algorithm["adv_estimator"] == NAME:
        check_algorithm(algorithm)
        _check_fatal(algorithm, preset)
    elif preset.turn_credit is TurnCredit.RETURNS:
        raise UserError(f"{key}={name}: reward_preset.turn_credit=returns needs {NAME}")
    elif preset.fatal_failures:
        raise UserError(
            f"{key}={name}: reward_preset.fatal_failures={preset.fatal_failures} needs {NAME}, as the score of such a "
            "rollout stands outside of its mask"
        )


def _check_fatal(algorithm: Mapping[str, Any], preset: RewardConfig) -> None:
    """Refuses to reject sequences besides: both leave a row whose score stands outside of its mask."""
    rejection = (algorithm.get("rollout_correction") or {}).get("rollout_rs")
    if preset.fatal_failures and rejection:
        raise UserError(
            f"algorithm.rollout_correction.rollout_rs={rejection}: a rollout that it rejects would be read as one with "
            f"a fatal failure; set it to null or reward_preset.fatal_failures={preset.fatal_failures} to 0"
        )


def check_algorithm(algorithm: Mapping[str, Any]) -> RewardConfig:
    """Returns the constants at `algorithm.codedance`; nothing else in verl's node may contradict the estimator.

    Raises:
        UserError: names the dotted key and the cure.
    """
    if algorithm.get("use_kl_in_reward"):
        raise UserError(
            f"algorithm.use_kl_in_reward=true: {NAME} reads turn rewards from single tokens, which a KL penalty there "
            "would change; set it to false and use actor_rollout_ref.actor.use_kl_loss=true"
        )
    correction = algorithm.get("rollout_correction") or {}
    if any(option.strip().startswith("token_") for option in str(correction.get("rollout_rs") or "").split(",")):
        raise UserError(
            f"algorithm.rollout_correction.rollout_rs={correction['rollout_rs']}: {NAME} finds turns in the response "
            "mask, which rejecting single tokens would cut; use a seq_ option"
        )
    if algorithm.get(CONFIG_KEY) is None:
        raise UserError(f"algorithm.{CONFIG_KEY}: no value given; add algorithm.{CONFIG_KEY}=${{reward_preset}}")
    return RewardConfig.from_mapping(algorithm[CONFIG_KEY], f"algorithm.{CONFIG_KEY}")


def estimate(
    token_level_rewards: torch.Tensor,
    response_mask: torch.Tensor,
    index: npt.NDArray[Any],
    config: Any,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Adapter of `token_advantages` to the signature of verl's estimators.

    `token_level_rewards` and `response_mask` are [B, T], `index` holds the group (`uid`) of each row, `config` is
    verl's `algorithm` node. Returns advantages and returns, float32 [B, T], which are equal here.
    """
    import torch

    # statistics in float64 on the CPU, where the driver has its tensors; the results go back as float32
    advantages = token_advantages(
        token_level_rewards.detach().cpu().float().numpy(),
        response_mask.detach().cpu().to(torch.int8).numpy(),
        index,
        check_algorithm(config),
        divide_by_std=bool(config.get("norm_adv_by_std_in_grpo", True)),
    )
    tensor = torch.from_numpy(advantages).to(token_level_rewards.device)
    return tensor, tensor.clone()  # two tensors: a change in place of one leaves the other


def register() -> None:
    """Registers the estimator with verl as `algorithm.adv_estimator=codedance_grpo`; safe to call again."""
    from verl.trainer.ppo.core_algos import register_adv_est

    register_adv_est(NAME)(estimate)
