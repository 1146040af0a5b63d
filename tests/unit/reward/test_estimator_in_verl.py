"""The estimator through verl's own registry and `compute_advantage`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from codedance_verl.reward.advantage import NAME, register, token_advantages
from codedance_verl.reward.encoding import encode_rewards
from codedance_verl.reward.presets import PAPER, ROBUST
from codedance_verl.reward.terms import turn_rewards_summed
from codedance_verl.rollout.telemetry import FILTER_METRIC, group_outcomes
from codedance_verl.types import RewardTerms
from tests.unit.reward.rollouts import RIGHT, UNGRADED, WRONG


def verl_advantages(rewards: torch.Tensor, mask: torch.Tensor, uid: list[str], **algorithm: object) -> torch.Tensor:
    from verl import DataProto
    from verl.trainer.ppo.ray_trainer import compute_advantage

    register()
    register()  # every process that imports the rollout worker does so again
    data = DataProto.from_dict(
        tensors={"token_level_rewards": rewards, "response_mask": mask},
        non_tensors={"uid": np.array(uid, dtype=object)},
    )
    config = OmegaConf.create({"norm_adv_by_std_in_grpo": True, "use_kl_in_reward": False, **algorithm})
    result = compute_advantage(data, adv_estimator=config.adv_estimator, config=config)
    assert torch.equal(result.batch["returns"], result.batch["advantages"])
    advantages: torch.Tensor = result.batch["advantages"]
    return advantages


@pytest.mark.parametrize("divide_by_std", [True, False])
def test_verl_hands_over_rewards_groups_and_constants(divide_by_std: bool) -> None:
    rewards = torch.tensor([[0, -0.5, 0, 0, 1.2], [0, 0, 0, 0, 0.4], [0, 0, 0, 0, 0.0]])
    mask = torch.tensor([[1, 1, 0, 1, 1], [1, 1, 0, 1, 1], [0, 0, 0, 0, 0]])
    algorithm = {"norm_adv_by_std_in_grpo": divide_by_std, "codedance": {"preset": "paper", "turn_weight": 0.4}}
    got = verl_advantages(rewards, mask, ["a", "a", "a"], adv_estimator=NAME, **algorithm)
    expected = token_advantages(
        rewards.numpy(), mask.numpy(), ["a", "a", "a"], PAPER.replace(turn_weight=0.4), divide_by_std=divide_by_std
    )
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy(), expected)
    assert got[0, 0] - got[0, 3] == pytest.approx(-0.4)


def test_without_turn_rewards_it_is_verls_grpo() -> None:
    torch.manual_seed(0)
    mask = (torch.arange(12) < torch.randint(3, 13, (16, 1))).long()
    rewards = torch.zeros(16, 12)
    rewards[torch.arange(16), mask.sum(1) - 1] = torch.randn(16)
    uid = [f"g{row // 4}" for row in range(16)]
    ours = verl_advantages(rewards, mask, uid, adv_estimator=NAME, codedance={"preset": "paper"})
    theirs = verl_advantages(rewards, mask, uid, adv_estimator="grpo")
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_verl_hands_over_the_score_outside_of_the_mask() -> None:
    """The third rollout had a fatal failure in its second turn: in the statistics, and its first turn is not blamed."""
    rewards = torch.tensor([[0, 0, 0, 0, 1.0], [0, 0, 0, 0, 0.5], [0, 0, 0, 0, 1e-30]])
    mask = torch.tensor([[1, 1, 0, 1, 1], [1, 1, 0, 1, 1], [1, 1, 0, 0, 0]])
    got = verl_advantages(rewards, mask, ["a"] * 3, adv_estimator=NAME, codedance={"preset": "fatal_aware"})
    np.testing.assert_allclose(got.numpy()[:, 0], [1, 0, 0], atol=1e-5)  # mean 0.5, deviation 0.5: -1 is clamped
    assert not got[2].any()
    rejected = verl_advantages(rewards, mask, ["a"] * 3, adv_estimator=NAME, codedance={"preset": "outcome"})
    assert rejected[2, 0] < 0  # another preset does not read what stands there


def gae(rewards: np.ndarray, values: np.ndarray, mask: np.ndarray, gamma: float, lam: float) -> np.ndarray:  # type: ignore[type-arg]
    """Generalised advantages of one row over its sampled tokens alone, from the definition, whitened by nobody."""
    places = np.flatnonzero(mask)
    result = np.zeros(len(rewards))
    for at, place in enumerate(places):
        total = 0.0
        for step, later in enumerate(places[at:]):
            after = values[places[at + step + 1]] if at + step + 1 < len(places) else 0.0
            total += (gamma * lam) ** step * (rewards[later] + gamma * after - values[later])
        result[place] = total
    return result


def test_ppo_takes_the_same_rewards_token_by_token() -> None:
    """verl's GAE on ragged multi-turn rows whose turn rewards are in units of the score; a masked row stays at zero."""
    from verl.trainer.ppo.core_algos import compute_gae_advantage_return

    spans = [[(0, 2), (3, 5), (7, 8)], [(0, 3), (5, 8)], [(0, 4)]]
    terms = [
        turn_rewards_summed(RewardTerms(1, 0, 0, 0, 1.1, (-0.5, 0.2, 0.0)), ROBUST),
        turn_rewards_summed(RewardTerms(0, 0, 0, 0, 0.0, (-0.5, 0.0)), ROBUST),
        RewardTerms(0, 0, 0, 0, 0.0, (0.0,), masked=True),
    ]
    rewards, mask = np.zeros((3, 8), np.float32), np.zeros((3, 8), np.float32)
    for row, (own, term) in enumerate(zip(spans, terms, strict=True)):
        rewards[row] = encode_rewards(own, term, 8)
        for start, end in own:
            mask[row, start:end] = not term.masked
    values = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    advantages, returns = compute_gae_advantage_return(
        *(torch.from_numpy(item) for item in (rewards, values, mask)), gamma=1.0, lam=0.9
    )
    slow = np.stack([gae(rewards[row], values[row], mask[row], 1.0, 0.9) for row in range(2)])
    sampled = mask[:2] > 0
    np.testing.assert_allclose((returns.numpy() - values)[:2][sampled], slow[sampled], atol=1e-5)
    whitened = (slow[sampled] - slow[sampled].mean()) / slow[sampled].std(ddof=1)
    np.testing.assert_allclose(advantages.numpy()[:2][sampled], whitened, atol=1e-3)
    assert rewards[0].sum() == pytest.approx(1.1 - 0.3) and rewards[1].sum() == pytest.approx(-0.3)
    assert not rewards[2].any()


class Queue:
    """verl's queue as far as its replay buffer asks it: groups with the outcome of each of their rollouts."""

    def __init__(self, groups: dict[str, list[float]]) -> None:
        self.cleared: set[str] = set()
        self._rollouts = {f"{uid}_{n}_0": value for uid, outs in groups.items() for n, value in enumerate(outs)}
        self._uids = list(groups)

    def kv_list(self) -> dict[str, dict[str, dict[str, object]]]:
        prompts = {uid: {"is_prompt": True, "status": "finished", "global_steps": 1} for uid in self._uids}
        items: dict[str, dict[str, object]] = {**prompts, **{key: {} for key in self._rollouts}}
        return {"train": {key: tag for key, tag in items.items() if key not in self.cleared}}

    def kv_batch_get(self, keys: list[str], **_: object) -> dict[str, list[object]]:
        return {"extra_fields": [{"reward_extra_info": {FILTER_METRIC: self._rollouts[key]}} for key in keys]}

    def kv_clear(self, keys: list[str], **_: object) -> None:
        self.cleared.update(keys)


def test_verls_group_filter_drops_groups_that_are_all_right_or_all_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """A masked rollout makes no group look mixed."""
    from verl.trainer.ppo.v1 import replay_buffer

    counted = RewardTerms(0, 0, 0, 0, 0.0, ())
    masked = RewardTerms(0, 0, 0, 0, 0.0, (), masked=True)
    groups = {
        "right": group_outcomes([RIGHT, RIGHT, RIGHT], [counted] * 3),
        "wrong": group_outcomes([WRONG, WRONG, WRONG], [counted] * 3),
        "mixed": group_outcomes([RIGHT, WRONG, WRONG], [counted] * 3),
        "rightbutone": group_outcomes([UNGRADED, RIGHT, RIGHT], [masked, counted, counted]),
        "nothing": group_outcomes([UNGRADED, UNGRADED, UNGRADED], [masked] * 3),
    }
    queue, refilled = Queue(groups), []
    monkeypatch.setattr(replay_buffer, "tq", queue)
    buffer = replay_buffer.ReplayBuffer(
        "sync",
        OmegaConf.create({}),
        None,
        "drop",
        OmegaConf.create({}),
        refill_fn=refilled.append,
        filter_groups_metric=FILTER_METRIC,
        train_batch_size=1,
        gen_batch_size=1,
        max_inflight_gen_batches=1,
    )
    batch, metrics = buffer.sample(global_steps=1, partition_id="train", batch_size=1)
    assert sorted(batch.keys) == ["mixed_0_0", "mixed_1_0", "mixed_2_0"]
    assert metrics["training/filter_groups/evicted_samples"] == 4
