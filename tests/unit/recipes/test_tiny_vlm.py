from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from codedance_verl.errors import UserError
from recipes.cpu_demo.demo_set import DemoSizes, make_demo_data
from recipes.cpu_demo.tiny_vlm import MARKUP_TOKENS, TinyShape, build_tiny_model

CONVERSATION = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "How many red tiles?"}]},
    {"role": "assistant", "content": "<think>I use code.</think>\n<code>\n```python\nprint(3)\n```\n</code>"},
    {"role": "user", "content": [{"type": "text", "text": "<tool_response>\n3\n"}, {"type": "image"}]},
    {"role": "assistant", "content": "<think>It printed 3.</think>\n<answer>3</answer>"},
    {"role": "tool", "content": "Crème brûlée, 漢字 and 1234"},
    {"role": "assistant", "content": "<answer>4</answer>"},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("tiny")
    data = make_demo_data(base / "data", sizes=DemoSizes(sft=64, rl_train=4, rl_val=4, test=4, blank=0, controls=0))
    return build_tiny_model(data.sft, base / "model", seed=5)


def test_a_longer_conversation_begins_with_the_tokens_of_a_shorter_one(folder: Path) -> None:
    processor = AutoProcessor.from_pretrained(folder)

    def tokens(count: int, generate: bool = False) -> list[int]:
        text = processor.apply_chat_template(CONVERSATION[:count], tokenize=False, add_generation_prompt=generate)
        return processor.tokenizer.encode(text)

    for count in range(1, len(CONVERSATION)):
        shorter, longer = tokens(count), tokens(count + 1)
        assert longer[: len(shorter)] == shorter
        if CONVERSATION[count]["role"] == "assistant":
            prompt = tokens(count, generate=True)
            assert longer[: len(prompt)] == prompt
    whole = tokens(len(CONVERSATION))
    single = [
        processor.tokenizer.encode(processor.apply_chat_template([message], tokenize=False)) for message in CONVERSATION
    ]
    assert whole == [token for message in single for token in message]


def test_tags_are_single_tokens_that_survive_decoding(folder: Path) -> None:
    tokenizer = AutoProcessor.from_pretrained(folder).tokenizer
    for token in MARKUP_TOKENS:
        assert len(tokenizer.encode(token)) == 1
    text = CONVERSATION[1]["content"]
    assert tokenizer.decode(tokenizer.encode(text), skip_special_tokens=True) == text
    unseen = "Crème brûlée, 漢字\n\t1234"
    assert tokenizer.decode(tokenizer.encode(unseen)) == unseen
    assert len(tokenizer.encode("1234")) == 4


def test_the_folder_loads_and_the_picture_reaches_the_logits(folder: Path) -> None:
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    assert sum(parameter.numel() for parameter in model.parameters()) < 1_000_000
    assert model.dtype == torch.float32
    text = processor.apply_chat_template(CONVERSATION[:1], tokenize=False, add_generation_prompt=True)
    logits = []
    for colour in ("red", "blue"):
        inputs = processor(text=[text], images=[Image.new("RGB", (112, 112), colour)], return_tensors="pt")
        assert (inputs["input_ids"] == model.config.image_token_id).sum() == 16
        with torch.no_grad():
            logits.append(model(**inputs).logits[0, -1])
    assert not torch.allclose(logits[0], logits[1])
    larger = processor(text=[text], images=[Image.new("RGB", (448, 448))], return_tensors="pt")
    assert (larger["input_ids"] == model.config.image_token_id).sum() == 16


def test_weights_follow_their_fan_in_and_the_seed(folder: Path, tmp_path: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(folder)
    spread = {name: float(parameter.detach().std()) for name, parameter in model.named_parameters()}
    layer = "model.language_model.layers.0."
    assert spread[layer + "mlp.up_proj.weight"] == pytest.approx(128**-0.5, rel=0.05)
    assert spread[layer + "mlp.down_proj.weight"] == pytest.approx(384**-0.5 / 2, rel=0.05)
    assert spread[layer + "self_attn.o_proj.weight"] == pytest.approx(128**-0.5 / 2, rel=0.05)
    text = model.config.text_config
    assert text.hidden_size // text.num_attention_heads >= 32
    data = make_demo_data(tmp_path / "data", sizes=DemoSizes(sft=64, rl_train=4, rl_val=4, test=4, blank=0, controls=0))
    again = build_tiny_model(data.sft, tmp_path / "again", seed=5)
    other = build_tiny_model(data.sft, tmp_path / "other", seed=6)
    bytes_of = {path: (path / "model.safetensors").read_bytes() for path in (folder, again, other)}
    assert bytes_of[folder] == bytes_of[again] != bytes_of[other]


def test_other_shapes_can_be_built(folder: Path, tmp_path: Path) -> None:
    shape = TinyShape(hidden=64, heads=2, kv_heads=1, ffn=96, vision_hidden=32, vision_ffn=64)
    built = build_tiny_model(folder.parent / "data" / "sft.parquet", tmp_path, shape=shape)
    assert AutoModelForImageTextToText.from_pretrained(built).config.text_config.hidden_size == 64


def test_without_demonstrations_there_is_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no demonstrations at .*; make them with `codedance data make"):
        build_tiny_model(tmp_path / "none.parquet", tmp_path / "model")
