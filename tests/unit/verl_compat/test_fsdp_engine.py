from __future__ import annotations

import torch

from codedance_verl.verl_compat.fsdp_engine import without
from codedance_verl.verl_compat.sampled_vocabulary import never_sampled
from tests.unit.environment.harness import processor, tokenizer


def test_rows_without_a_token_and_placeholders_of_pictures_are_never_sampled() -> None:
    known = len(tokenizer())
    ids = never_sampled(tokenizer(), processor("qwen2_5_vl"), known + 3)
    assert ids[-3:] == [known, known + 1, known + 2]
    assert tokenizer().convert_ids_to_tokens(ids[:-3]) == ["<|image_pad|>", "<|video_pad|>"]
    assert never_sampled(tokenizer(), None, known) == []


def test_what_is_left_out_gets_no_probability_and_no_gradient() -> None:
    torch.manual_seed(0)
    head = torch.nn.Linear(4, 6)
    head.register_forward_hook(without([1, 5]))
    distribution = torch.distributions.Categorical(logits=head(torch.randn(3, 4)))
    assert distribution.probs[:, [1, 5]].max() == 0
    assert torch.isfinite(distribution.entropy()).all()
    distribution.log_prob(torch.tensor([0, 2, 4])).sum().backward()
    assert head.weight.grad is not None
    assert head.weight.grad[[1, 5]].abs().max() == 0
    assert head.weight.grad[[0, 2, 3, 4]].abs().min() > 0
