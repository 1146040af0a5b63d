"""The estimator through verl's own registry and `compute_advantage`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from codedance_verl.reward.advantage import NAME, register, token_advantages
from codedance_verl.reward.presets import PAPER


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
        rewards.numpy(), mask.numpy(), ["a", "a", "a"], replace(PAPER, turn_weight=0.4), divide_by_std=divide_by_std
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
