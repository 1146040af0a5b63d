from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from codedance_verl.verl_compat.lora import merged_weights


class _Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(6, 8)
        self.second = torch.nn.Linear(8, 4, bias=False)


def with_adapters(**options: Any) -> Any:
    model: Any = get_peft_model(_Model(), LoraConfig(r=2, lora_alpha=6, target_modules=["first", "second"], **options))  # type: ignore[arg-type]
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:  # which begins as zero, and so would the whole adapter be
                weight.normal_()
    return model


def test_merged_weights_are_those_of_peft_and_the_model_stays_as_it_is() -> None:
    model = with_adapters()
    before = copy.deepcopy(model.state_dict())
    merged = dict(merged_weights(model))
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    expected = copy.deepcopy(model).merge_and_unload().state_dict()
    assert merged.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(merged[name], weight, rtol=0, atol=1e-6)
    assert not torch.equal(merged["first.weight"], before["base_model.model.first.base_layer.weight"])


def test_a_weight_that_was_given_away_does_not_change_with_the_model() -> None:
    model = with_adapters()
    merged = dict(merged_weights(model))
    kept = {name: weight.clone() for name, weight in merged.items()}
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(1.0)
    assert all(torch.equal(weight, kept[name]) for name, weight in merged.items())


def test_adapters_of_another_kind_are_refused() -> None:
    with pytest.raises(NotImplementedError, match=r"first: its adapter is not plain LoRA"):
        dict(merged_weights(with_adapters(use_dora=True)))
