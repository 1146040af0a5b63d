"""What a group's images become on their way to the trainer, with real processors and verl's own preparation."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
import torch
from PIL import Image
from verl.trainer.ppo.v1 import agent_loop_tq

from codedance_verl.rollout import output as module
from codedance_verl.rollout.output import GroupImages, RolloutOutput, images_of
from codedance_verl.types import Execution, ExecutionStatus
from codedance_verl.verl_compat.pixel_bytes import BYTES, VALUES, layout_of, unpack
from codedance_verl.verl_compat.pixel_inputs import FIELD, with_pixel_values
from tests.unit.environment.harness import FAMILIES, Say, Script, picture, play, processor, tensor_worker
from tests.unit.verl_compat.test_pixel_bytes import noise


def group(family: str, *held: list[Image.Image]) -> tuple[GroupImages, list[Image.Image]]:
    """The images of a group, and those that were prepared so far."""
    prepared: list[Image.Image] = []

    def prepare(image: Image.Image) -> dict[str, Any]:
        prepared.append(image)
        assert threading.current_thread() is not threading.main_thread()
        return tensor_worker(family)._inputs_of_image(image)  # type: ignore[no-any-return]

    return GroupImages(held, prepare, layout_of(processor(family).image_processor)), prepared


@pytest.mark.parametrize("family", FAMILIES)
def test_the_image_of_a_question_is_prepared_once_for_all_rollouts(family: str) -> None:
    question, own = noise(100, 70), noise(60, 60, 1)
    held = [[question, own], [question], [question]]
    images, prepared = group(family, *held)

    async def all_of_a_group() -> list[Any]:
        return [await images.inputs(each) for each in held]

    first, *others = asyncio.run(all_of_a_group())
    assert prepared == [question, own]
    assert all(torch.equal(other[BYTES], first[BYTES][: len(other[BYTES])]) for other in others)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_rollout_trains_on_the_values_that_verl_would_have_queued(family: str) -> None:
    shown = Execution(ExecutionStatus.OK, images=(picture(50, 40, 7), picture(44, 90, 200)))
    says = [Say("<code>```python\nf()\n```</code>"), Say("<answer>1</answer>")]
    output = play(Script(says, [shown], pictures=((40, 30), (90, 50)), family=family)).output
    worker = tensor_worker(family)
    ids = torch.tensor([[*output.prompt_ids, *output.response_ids]])
    of_verl = worker._compute_multi_modal_inputs(output, ids[0])
    images, _ = group(family, images_of(output))
    made = asyncio.run(images.inputs(images_of(output)))
    assert made is not None and BYTES in made and len(images_of(output)) == 4
    found = unpack(made)
    assert found.keys() == of_verl.keys()
    assert torch.equal(found[VALUES].view(torch.int32), of_verl[VALUES].view(torch.int32))
    assert all(torch.equal(found[name], of_verl[name]) for name in ("image_grid_thw", "images_seqlens"))
    mask = torch.ones_like(ids)
    assert torch.equal(worker._compute_position_ids(ids, mask, made), worker._compute_position_ids(ids, mask, of_verl))


@pytest.mark.parametrize("family", FAMILIES)
def test_verl_queues_the_bytes_and_reads_the_values_of_the_processor(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    queued: list[Any] = []

    async def put(fields: Any, **_: Any) -> None:
        queued.append(fields)

    monkeypatch.setattr(agent_loop_tq.tq, "async_kv_batch_put", put)
    played = play(Script([Say("<answer>1</answer>")], pictures=((40, 30), (90, 50)), family=family)).output
    worker = tensor_worker(family)
    kept = ("prompt_ids", "response_ids", "response_mask", "response_logprobs", "multi_modal_data", "metrics")
    output = RolloutOutput(
        **{name: getattr(played, name) for name in kept},
        reward_score=1.0,
        token_rewards=torch.zeros(len(played.response_ids)),
        extra_fields={"reward_extra_info": {}, "min_global_steps": 0, "max_global_steps": 0},
    )
    images, _ = group(family, images_of(output))
    output.image_inputs = asyncio.run(images.inputs(images_of(output)))
    parent: Any = agent_loop_tq.AgentLoopWorkerTQ.__ray_metadata__.modified_class
    asyncio.run(parent._agent_loop_postprocess(worker, output, False, uid="u", session_id=0, global_steps=1))
    (fields,) = queued
    assert BYTES in fields[FIELD][0] and VALUES not in fields[FIELD][0]
    assert not {"image_inputs", "multi_modal_data", "token_rewards"} & set(fields.keys())
    expected = processor(family).image_processor(images=images_of(output), return_tensors="pt")
    found = with_pixel_values(fields)[FIELD][0]
    assert torch.equal(found[VALUES].view(torch.int32), expected[VALUES].view(torch.int32))
    assert fields["position_ids"].shape[-1] == len(played.prompt_ids) + len(played.response_ids)


def test_a_validation_queues_no_pixels_packs_none_and_keeps_what_positions_need(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    question, own = noise(100, 70), noise(60, 60, 1)
    images, prepared = group("qwen3_vl", [question, own], [question])
    with monkeypatch.context() as unpacked:
        unpacked.setattr(module, "pack", lambda *_: pytest.fail("an image is packed"))
        made = asyncio.run(images.inputs([question, own], pixels=False))
        asyncio.run(images.inputs([question], pixels=False))
    assert prepared == [question, own]
    assert made is not None and not {BYTES, VALUES} & made.keys() and len(made["image_grid_thw"]) == 2
    trained = asyncio.run(images.inputs([question]))
    assert trained is not None and BYTES in trained


def test_a_rollout_without_an_image_is_left_to_verl() -> None:
    images, _ = group("qwen3_vl", [])
    assert asyncio.run(images.inputs([])) is None
