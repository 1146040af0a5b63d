from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)
from verl.models.transformers import qwen2_vl, qwen3_vl
from verl.single_controller.ray import base

from codedance_verl.trainer import runner
from codedance_verl.verl_compat import repairs

TEXT = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2}
VISION = {"hidden_size": 32, "depth": 1, "num_heads": 2, "out_hidden_size": 32, "fullatt_block_indexes": [0]}
IMAGE = 5


@pytest.fixture(autouse=True)
def _verls_own(monkeypatch: pytest.MonkeyPatch) -> None:
    original = getattr(qwen2_vl._get_input_embeds, "__wrapped__", qwen2_vl._get_input_embeds)
    monkeypatch.setattr(qwen2_vl, "_get_input_embeds", original)


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    text = {
        **TEXT,
        "intermediate_size": 64,
        "vocab_size": 50,
        "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]},
    }
    config = Qwen2_5_VLConfig(
        text_config=text, vision_config={**VISION, "intermediate_size": 64}, image_token_id=IMAGE, video_token_id=6
    )
    return Qwen2_5_VLForConditionalGeneration(config).model


def test_a_micro_batch_of_text_alone_is_embedded_and_reaches_every_vision_weight(model: Any) -> None:
    ids = torch.tensor([[1, 2, 3]])
    with pytest.raises(AttributeError, match="mean"):
        qwen2_vl._get_input_embeds(model, ids)
    repairs.repair_model("qwen2_5_vl")
    model.zero_grad()
    embedded, mask = qwen2_vl._get_input_embeds(model, ids, torch.ones_like(ids))
    assert torch.equal(embedded, model.get_input_embeddings()(ids)) and mask is not None
    embedded.sum().backward()
    gradients = [parameter.grad for parameter in model.visual.parameters()]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)


def test_a_micro_batch_with_pictures_is_embedded_as_before(model: Any) -> None:
    grid = torch.tensor([[1, 4, 4]])
    vision = model.config.vision_config
    patches = torch.randn(16, vision.in_channels * vision.temporal_patch_size * vision.patch_size**2)
    given = {"input_ids": torch.tensor([[1, *[IMAGE] * 4, 2]]), "pixel_values": patches, "image_grid_thw": grid}
    before, _ = qwen2_vl._get_input_embeds(model, **given)
    repairs.embed_text_alone()
    repairs.embed_text_alone()  # once is enough
    after, _ = qwen2_vl._get_input_embeds(model, **given)
    assert torch.equal(before, after)


def test_text_alone_reaches_every_vision_weight_of_qwen3_without_a_repair() -> None:
    """verl unpacks what its vision tower returns, features of DeepStack included."""
    vision = {"hidden_size": 32, "depth": 2, "num_heads": 2, "out_hidden_size": 32, "deepstack_visual_indexes": [0]}
    config = Qwen3VLConfig(
        text_config={**TEXT, "num_hidden_layers": 2, "intermediate_size": 64, "vocab_size": 50, "head_dim": 8},
        vision_config={**vision, "intermediate_size": 64, "num_position_embeddings": 16},
    )
    model, ids = Qwen3VLForConditionalGeneration(config).model, torch.tensor([[1, 2, 3]])
    found = qwen3_vl._get_input_embeds(model, ids, torch.ones_like(ids))
    assert torch.equal(found["inputs_embeds"], model.get_input_embeddings()(ids))
    assert found["deepstack_visual_embeds"] is None
    found["inputs_embeds"].sum().backward()
    gradients = [parameter.grad for parameter in model.visual.parameters()]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)


def test_other_models_are_left_alone() -> None:
    before = qwen2_vl._get_input_embeds
    repairs.repair_model("qwen3_vl")
    assert qwen2_vl._get_input_embeds is before


def test_another_function_of_verls_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def mended(model: Any, input_ids: torch.Tensor) -> torch.Tensor:
        return input_ids

    monkeypatch.setattr(qwen2_vl, "_get_input_embeds", mended)
    with pytest.raises(RuntimeError, match=r"is not that of verl 0\.9\.1: check .*repairs\.embed_text_alone$"):
        repairs.embed_text_alone()


def _verls_device_check() -> Any:
    return inspect.unwrap(base.ResourcePoolManager._check_resource_available)


def test_a_run_waits_for_devices_that_another_job_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is free is the test's; verl's own manager asks for it."""
    monkeypatch.setattr(base.ResourcePoolManager, "_check_resource_available", _verls_device_check())
    monkeypatch.setattr(base.ray._private.state, "available_resources_per_node", lambda: {"a": {"GPU": 2.0}})
    manager = base.ResourcePoolManager({"pool": [8]}, {})
    with pytest.raises(ValueError, match="less than total desired GPUs 8"):
        manager.create_resource_pool()
    repairs.wait_for_devices()
    repairs.wait_for_devices()  # once is enough
    manager.create_resource_pool()
    assert manager.resource_pool_dict["pool"].store == [8]


def test_every_training_is_given_that_repair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base.ResourcePoolManager, "_check_resource_available", _verls_device_check())
    monkeypatch.setattr(runner.light_actors, "start_light", lambda: None)
    monkeypatch.setitem(runner.TRAINER_REGISTRY, "sync", runner.TRAINER_REGISTRY["sync"])
    seen = []
    monkeypatch.setattr(runner._VerlRunner, "run", lambda *_: seen.append(base.ResourcePoolManager({"pool": [8]}, {})))
    runner.TaskRunner().run(OmegaConf.create({"trainer": {"v1": {"trainer_mode": "sync"}}}))
    monkeypatch.setattr(base.ray._private.state, "available_resources_per_node", dict)
    seen[0].create_resource_pool()


def test_another_check_of_verls_for_devices_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def mended(self: Any) -> None:
        return None

    monkeypatch.setattr(base.ResourcePoolManager, "_check_resource_available", mended)
    with pytest.raises(RuntimeError, match=r"is not that of verl 0\.9\.1: check .*repairs\.wait_for_devices$"):
        repairs.wait_for_devices()
