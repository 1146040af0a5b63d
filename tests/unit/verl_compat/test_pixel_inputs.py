from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict
from verl.utils.model import extract_multi_modal_inputs
from verl.utils.tensordict_utils import list_of_dict_to_tensordict
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead, FSDPEngineWithValueHead

from codedance_verl.verl_compat.fsdp_engine import SampledVocabularyEngine
from codedance_verl.verl_compat.pixel_bytes import BYTES, VALUES, layout_of, pack
from codedance_verl.verl_compat.pixel_inputs import FIELD, UnpacksPixels, with_pixel_values
from codedance_verl.verl_compat.value_engine import ValueEngine
from tests.unit.environment.harness import FAMILIES, processor
from tests.unit.verl_compat.test_pixel_bytes import noise, processed


def batch_of(*rows: object) -> TensorDict:
    return list_of_dict_to_tensordict([{"n": torch.tensor(number), FIELD: row} for number, row in enumerate(rows)])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_micro_batch_has_the_values_of_the_processor(family: str) -> None:
    floats = [processed(family, [noise(90, 60, seed), noise(70, 70)]) for seed in range(3)]
    layout = layout_of(processor(family).image_processor)
    packed = batch_of(*(pack(row, layout) for row in floats[:2]), {}, floats[2])
    found = extract_multi_modal_inputs(with_pixel_values(packed)[FIELD])
    expected = extract_multi_modal_inputs(batch_of(*floats)[FIELD])
    assert found.keys() == expected.keys() and BYTES not in found
    assert torch.equal(found[VALUES].view(torch.int32), expected[VALUES].view(torch.int32))
    assert torch.equal(found["image_grid_thw"], expected["image_grid_thw"])
    assert BYTES in packed[FIELD][0], "the batch keeps its bytes: floats are there for one micro-batch alone"


def test_a_batch_without_images_is_left_as_it_is() -> None:
    text = TensorDict({"n": torch.arange(2)}, batch_size=2)
    assert with_pixel_values(text) is text
    assert extract_multi_modal_inputs(with_pixel_values(batch_of({}, {}))[FIELD]) == {}


@pytest.mark.parametrize(
    ("engine", "of_verl"),
    [(SampledVocabularyEngine, FSDPEngineWithLMHead), (ValueEngine, FSDPEngineWithValueHead)],
)
def test_actor_reference_and_critic_unpack_before_verl_reads(engine: type, of_verl: type) -> None:
    order = engine.__mro__
    assert order.index(UnpacksPixels) < order.index(of_verl)
