"""The memory estimate against what is known: published sizes, arithmetic of the formats, and what divides what."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoModelForImageTextToText

from codedance_verl.preflight.memory import (
    GIB,
    VLLM_OVERHEAD,
    EngineMemory,
    Estimate,
    MemorySettings,
    activations,
    estimate,
    states,
)
from codedance_verl.preflight.model_shape import ModelShape, read_shape
from tests.unit.preflight.folders import PARAMETERS_7B, make_model

LONGEST = 20_480
ACTOR = EngineMemory(micro_tokens=LONGEST)
SETTINGS = MemorySettings(
    shards=16, actor=ACTOR, device_bytes=80 * GIB, vllm_share=0.6, sequence_tokens=LONGEST, image_tokens=LONGEST
)


@pytest.fixture(scope="module")
def shape(tmp_path_factory: pytest.TempPathFactory) -> ModelShape:
    return read_shape(make_model(tmp_path_factory.mktemp("7b"), "7b"), "model.path")


def _phase(found: Estimate, name: str) -> dict[str, float]:
    (phase,) = (item for item in found.phases if item.name == name)
    return dict(phase.parts)


def test_the_7b_configuration_has_the_published_parameters(shape: ModelShape) -> None:
    assert shape.parameters == PARAMETERS_7B
    assert (shape.layers, shape.heads, shape.kv_heads, shape.head_dim) == (28, 28, 4, 128)
    assert shape.kv_bytes_per_token(2) == 56 * 1024


def test_counting_without_weights_is_counting_with_them(tmp_path: Path) -> None:
    folder = make_model(tmp_path)
    real = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(folder))
    assert read_shape(folder, "model.path").parameters == sum(weight.numel() for weight in real.parameters())


def test_training_in_float32_takes_sixteen_bytes_a_parameter_over_all_devices(shape: ModelShape) -> None:
    assert states(shape, ACTOR, 1).total == 16 * PARAMETERS_7B
    half = states(shape, ACTOR, 8), states(shape, ACTOR, 16)
    assert half[0].total == 2 * half[1].total
    assert half[0].weights == 2 * half[1].weights


def test_twice_the_devices_halve_what_is_divided_and_nothing_else(shape: ModelShape) -> None:
    eight, sixteen = (_phase(estimate(shape, replace(SETTINGS, shards=n)), "actor: passes") for n in (8, 16))
    assert eight.pop("states") == 2 * sixteen.pop("states")
    kept = [_phase(estimate(shape, replace(SETTINGS, shards=n)), "sampling")["states"] for n in (8, 16)]
    assert kept[0] == 2 * kept[1]
    assert eight == sixteen


def test_lora_trains_its_adapters_alone(shape: ModelShape) -> None:
    lora = states(shape, replace(ACTOR, lora_rank=32), 1)
    assert lora.gradients + lora.moments < 0.05 * lora.weights
    assert lora.weights == pytest.approx(4 * PARAMETERS_7B, rel=0.02)


def test_what_is_offloaded_counts_for_the_host_while_rollouts_are_sampled(shape: ModelShape) -> None:
    plain = estimate(shape, SETTINGS)
    moved = estimate(shape, replace(SETTINGS, actor=replace(ACTOR, param_offload=True, optimizer_offload=True)))
    assert plain.host == 0 and moved.kept == 0
    assert moved.host == plain.kept == pytest.approx(12 * PARAMETERS_7B / 16)


def test_a_critic_is_a_second_model_and_a_reference_stays_on_the_host(shape: ModelShape) -> None:
    plain, critic = estimate(shape, SETTINGS), estimate(shape, replace(SETTINGS, critic=ACTOR))
    assert critic.kept == 2 * plain.kept
    reference = estimate(shape, replace(SETTINGS, reference=replace(ACTOR, always_offloaded=True)))
    assert reference.kept == plain.kept
    assert reference.host == 4 * PARAMETERS_7B / 16


def test_the_kv_cache_is_what_the_weights_leave(shape: ModelShape) -> None:
    found = estimate(shape, SETTINGS)
    assert found.vllm_weights == 2 * PARAMETERS_7B
    assert found.kv_cache == 0.6 * 80 * GIB - 2 * PARAMETERS_7B - VLLM_OVERHEAD
    assert found.kv_tokens == int(found.kv_cache / (56 * 1024))
    halved = estimate(shape, replace(SETTINGS, tensor_parallel=2))
    assert halved.vllm_weights == PARAMETERS_7B
    assert halved.kv_tokens > 2 * found.kv_tokens


def test_sequences_shared_and_blocks_computed_again_take_less(shape: ModelShape) -> None:
    plain = activations(shape, ACTOR, SETTINGS)
    shared = activations(shape, ACTOR, replace(SETTINGS, sequence_parallel=4))
    assert shared["activations"] == plain["activations"] / 4
    assert shared["logits"] == plain["logits"] / 4
    kept = activations(shape, ACTOR, replace(SETTINGS, checkpointing=False))
    assert kept["activations"] > 5 * plain["activations"]
    assert activations(shape, ACTOR, replace(SETTINGS, fused_logits=True))["logits"] == 0


def test_groups_apart_have_no_phase_of_sampling(shape: ModelShape) -> None:
    found = estimate(shape, replace(SETTINGS, separate=True))
    assert [phase.name for phase in found.phases] == ["actor: passes", "actor: optimizer"]
