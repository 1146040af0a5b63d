from __future__ import annotations

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLForConditionalGeneration,
)

from codedance_verl.config.compose import CONF_DIR
from codedance_verl.errors import UserError
from recipes.cpu_demo import tiny_model, tiny_qwen3
from recipes.cpu_demo.demo_models import DEMO_MODELS
from recipes.cpu_demo.demo_set import DemoSizes, make_demo_data
from recipes.cpu_demo.tiny_shape import TinyShape
from recipes.cpu_demo.tiny_tokenizer import MARKUP_TOKENS, texts_of, train_tokenizer
from recipes.cpu_demo.tiny_vlm import FAMILIES, build_tiny_model

CONVERSATION = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "How many red tiles?"}]},
    {"role": "assistant", "content": "<think>I use code.</think>\n<code>\n```python\nprint(3)\n```\n</code>"},
    {"role": "user", "content": [{"type": "text", "text": "<tool_response>\n3\n"}, {"type": "image"}]},
    {"role": "assistant", "content": "<think>It printed 3.</think>\n<answer>3</answer>"},
    {"role": "tool", "content": "Crème brûlée, 漢字 and 1234"},
    {"role": "assistant", "content": "<answer>4</answer>"},
]
CLASSES = {"tiny": Qwen2_5_VLForConditionalGeneration, "tiny_qwen3": Qwen3VLForConditionalGeneration}
TOKEN = {"tiny": 28, "tiny_qwen3": 32}
"""Pixels of a token's side."""


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = DemoSizes(sft=64, rl_train=4, rl_val=4, test=4, blank=0, controls=0)
    return make_demo_data(tmp_path_factory.mktemp("tiny") / "data", sizes=sizes).sft


@pytest.fixture(scope="module", params=CLASSES)
def name(request: pytest.FixtureRequest) -> str:
    """A model, by its file in `conf/model`."""
    return str(request.param)


@pytest.fixture(scope="module")
def folder(name: str, demonstrations: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(demonstrations, tmp_path_factory.mktemp(name) / "model", seed=5, model=name)


def test_the_demo_has_a_configuration_for_every_model_that_can_be_built() -> None:
    assert set(CLASSES) == set(FAMILIES) == set(DEMO_MODELS)
    for name, model in DEMO_MODELS.items():
        config = OmegaConf.load(CONF_DIR / "model" / f"{name}.yaml")
        assert config.actor_rollout_ref.model.path == f"outputs/{model.folder}/sft/model"
        assert 2 * config.data.image_patch_size == TOKEN[name]


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


def test_the_folder_loads_and_the_image_reaches_the_logits(name: str, folder: Path) -> None:
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    assert type(model) is CLASSES[name]
    assert sum(parameter.numel() for parameter in model.parameters()) < 1_000_000
    assert model.dtype == torch.float32
    text = processor.apply_chat_template(CONVERSATION[:1], tokenize=False, add_generation_prompt=True)
    logits = []
    for colour in ("red", "blue"):
        inputs = processor(text=[text], images=[Image.new("RGB", (112, 112), colour)], return_tensors="pt")
        with torch.no_grad():
            logits.append(model(**inputs).logits[0, -1])
    assert not torch.allclose(logits[0], logits[1])
    side = 4 * TOKEN[name]
    for size, tokens in {(side, side): 16, (112, 112): 16, (448, 448): 16, (side // 2, side): 8, (20, 20): 4}.items():
        inputs = processor(text=[text], images=[Image.new("RGB", size)], return_tensors="pt")
        assert (inputs["input_ids"] == model.config.image_token_id).sum() == tokens, size


def test_weights_follow_their_fan_in_and_the_seed(
    name: str, folder: Path, demonstrations: Path, tmp_path: Path
) -> None:
    model = AutoModelForImageTextToText.from_pretrained(folder)
    spread = {name: float(parameter.detach().std()) for name, parameter in model.named_parameters()}
    layer, block = "model.language_model.layers.0.", "model.visual.blocks.0."
    assert spread[layer + "mlp.up_proj.weight"] == pytest.approx(128**-0.5, rel=0.05)
    assert spread[layer + "mlp.down_proj.weight"] == pytest.approx(384**-0.5 / 2, rel=0.05)
    assert spread[layer + "self_attn.o_proj.weight"] == pytest.approx(128**-0.5 / 2, rel=0.05)
    added = {"tiny": "mlp.down_proj.weight", "tiny_qwen3": "mlp.linear_fc2.weight"}[name]
    assert spread[block + added] == pytest.approx(192**-0.5 / 2, rel=0.05)
    text = model.config.text_config
    assert text.hidden_size // text.num_attention_heads >= 32
    again = build_tiny_model(demonstrations, tmp_path / "again", seed=5, model=name)
    other = build_tiny_model(demonstrations, tmp_path / "other", seed=6, model=name)
    bytes_of = {path: (path / "model.safetensors").read_bytes() for path in (folder, again, other)}
    assert bytes_of[folder] == bytes_of[again] != bytes_of[other]


def test_other_shapes_can_be_built(name: str, demonstrations: Path, tmp_path: Path) -> None:
    shape = TinyShape(hidden=64, heads=2, kv_heads=1, ffn=96, vision_hidden=32, vision_ffn=64)
    built = build_tiny_model(demonstrations, tmp_path, shape=shape, model=name)
    assert AutoModelForImageTextToText.from_pretrained(built).config.text_config.hidden_size == 64


@pytest.mark.parametrize(
    ("shape", "levels", "sections"),
    [
        (TinyShape(), [0], [6, 5, 5]),
        # of Qwen3-VL-4B-Instruct
        (TinyShape(hidden=128 * 20, heads=20, layers=36, vision_layers=24), [5, 11, 17], [24, 20, 20]),
        (TinyShape(layers=1), [], [6, 5, 5]),
    ],
    ids=["tiny", "4b", "one layer"],
)
def test_qwen3_has_deepstack_where_the_language_model_can_use_it(
    shape: TinyShape, levels: list[int], sections: list[int], demonstrations: Path
) -> None:
    config = tiny_qwen3.model_config(train_tokenizer(texts_of(demonstrations)), shape)
    assert config.vision_config.deepstack_visual_indexes == levels
    assert config.text_config.rope_parameters["mrope_section"] == sections


def test_deepstack_reaches_the_answer(demonstrations: Path, tmp_path: Path) -> None:
    folder = build_tiny_model(demonstrations, tmp_path, model="tiny_qwen3")
    model, processor = AutoModelForImageTextToText.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    text = processor.apply_chat_template(CONVERSATION[:1], tokenize=False, add_generation_prompt=True)
    inputs = processor(text=[text], images=[Image.effect_noise((128, 128), 90).convert("RGB")], return_tensors="pt")
    model(**inputs).logits[0, -1].square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.model.visual.parameters())


def test_the_command_builds_the_model_that_is_asked_for(demonstrations: Path, tmp_path: Path) -> None:
    arguments = ["--data", str(demonstrations), "--out", str(tmp_path / "model"), "--model", "tiny_qwen3"]
    assert tiny_model.main(arguments) == 0
    assert "Qwen3VLForConditionalGeneration" in (tmp_path / "model" / "config.json").read_text()


def test_without_demonstrations_there_is_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no demonstrations at .*; make them with `codedance data make"):
        build_tiny_model(tmp_path / "none.parquet", tmp_path / "model")
