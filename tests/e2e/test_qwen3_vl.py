"""SFT and RL of a Qwen3-VL with the real vLLM and FSDP: DeepStack and interleaved rotary positions agree on both sides.

Sandboxes are processes: they are not what is looked at here.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText, Qwen3VLForConditionalGeneration

from recipes.cpu_demo.tiny_vlm import build_tiny_model
from tests.e2e.conftest import ColdStart, run_main, sft_losses
from tests.e2e.runs import metrics_of, rollout_files, rollouts_in

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(1800)]

SFT_STEPS, STEPS = 50, 2
SFT = (
    # smaller than the demo's batch, as the test has to be short
    "data.train_batch_size=8",
    "data.max_image_pixels=12544",
    f"trainer.total_training_steps={SFT_STEPS}",
    "trainer.save_freq=-1",
    "optim.lr_scheduler_type=constant",
)
SMALL = (
    "recipe=cpu_demo",
    "model=tiny_qwen3",
    "hardware=cpu",
    "sandbox.backend=process",
    "sandbox.containers=1",
    "data.train_batch_size=8",
    "actor_rollout_ref.rollout.n=4",
    "actor_rollout_ref.actor.ppo_mini_batch_size=8",
    f"trainer.total_training_steps={STEPS}",
    f"trainer.save_freq={STEPS}",
    "time_limit_s=780",
    # for its metrics alone: the largest and the least ratio of a token's probability in training and in rollout
    "algorithm.rollout_correction.rollout_is=token",
    "algorithm.rollout_correction.rollout_is_threshold=1000.0",
)
VISION = ("visual.pos_embed.weight", "visual.deepstack_merger_list.0.linear_fc2.weight", "self_attn.q_norm.weight")
"""Weights that only this family has."""


def test_it_learns_in_sft_then_in_rl_from_what_vllm_sampled_by_its_weights(
    cold_start: ColdStart, tmp_path: Path
) -> None:
    tiny, sft, run_dir = tmp_path / "tiny", tmp_path / "sft", tmp_path / "rl"
    build_tiny_model(cold_start.data / "sft.parquet", tiny, model="tiny_qwen3")
    demonstrations = f"data.train_files={cold_start.data / 'sft.parquet'}"
    assert run_main("codedance_verl.sft", f"run_dir={sft}", demonstrations, f"model.path={tiny}", *SFT).returncode == 0
    losses = sft_losses(sft)
    assert len(losses) == SFT_STEPS and losses[-1] < losses[0] / 4

    data = (f"data.{split}_files={cold_start.data / f'rl_{split}.parquet'}" for split in ("train", "val"))
    started = (f"run_dir={run_dir}", f"actor_rollout_ref.model.path={sft / 'model'}")
    assert run_main("codedance_verl.train", *SMALL, *started, *data).returncode == 0
    steps = metrics_of(run_dir)
    assert sorted(steps) == [1, 2]
    # the second step was sampled by weights that vLLM was sent after the first; in float32 both sides agree
    for metrics in steps.values():
        assert metrics["actor/grad_norm"] > 0
        largest, least = metrics["rollout_corr/rollout_is_max"], metrics["rollout_corr/rollout_is_min"]
        assert -1e-3 < math.log(least) <= math.log(largest) < 1e-3
    rollouts = rollouts_in(rollout_files(run_dir))
    assert any(turn["execution"] for rollout in rollouts for turn in rollout["turns"]), "no rollout had a second turn"

    # in float32, as they were trained: two steps change a weight of 1 by less than bfloat16 tells apart
    models = (path / "model" for path in (sft, run_dir))
    before, after = (AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32) for path in models)
    assert isinstance(after, Qwen3VLForConditionalGeneration)
    new, old = after.state_dict(), before.state_dict()
    for part in VISION:
        names = [name for name in new if name.endswith(part)]
        assert names and not any(new[name].equal(old[name]) for name in names), part
