"""What the loss of a token is divided by, as composed, through verl's own aggregation."""

from __future__ import annotations

import pytest
import torch
from verl.trainer.ppo.core_algos import agg_loss

from codedance_verl.config.compose import compose_config

DR_GRPO = [
    "algorithm.norm_adv_by_std_in_grpo=false",
    "actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-sum-norm",
]
FILLED = ["recipe=cpu_demo", "hardware=cpu", "run_dir=none"]


def loss(lengths: list[int], rollouts: int, factor: int | None) -> float:
    """Of a micro-batch of rollouts this long, whose tokens have a loss of 1 each, in a batch of so many `rollouts`."""
    mask = torch.tensor([[1.0] * length + [0.0] * (max(lengths) - length) for length in lengths])
    aggregated = agg_loss(mask, mask, "seq-mean-token-sum-norm", global_batch_size=rollouts, loss_scale_factor=factor)
    return float(aggregated)


def test_a_token_of_dr_grpo_weighs_the_same_in_every_micro_batch() -> None:
    config = compose_config("train", [*FILLED, *DR_GRPO, "data.max_response_length=2000"])
    factor = config.actor_rollout_ref.actor.loss_scale_factor
    assert factor == 2000
    assert loss([100, 120], 4, factor) + loss([1900, 2000], 4, factor) == pytest.approx(
        loss([100, 120, 1900, 2000], 4, factor)
    )
    assert loss([100, 120], 4, None) + loss([1900, 2000], 4, None) != pytest.approx(
        loss([100, 120, 1900, 2000], 4, None)
    ), "verl has a constant of its own now"


@pytest.mark.parametrize("trainer", ["colocate_async", "separate_async"])
def test_rollouts_of_older_weights_are_weighed_in_every_asynchronous_mode(trainer: str) -> None:
    correction = compose_config("train", [*FILLED, f"trainer={trainer}"]).algorithm.rollout_correction
    assert (correction.rollout_is, correction.rollout_is_threshold) == ("token", 2.0)
