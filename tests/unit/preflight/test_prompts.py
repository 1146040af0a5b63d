"""Tokens of questions are those that the rollout makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from transformers import AutoProcessor

from codedance_verl.data.fields import Message
from codedance_verl.data.schema import Prompt
from codedance_verl.environment.resized_images import resize_image
from codedance_verl.preflight.prompts import longest_prompt
from codedance_verl.rollout.prompt_tokens import PromptTokens
from tests.unit.preflight.folders import make_model


@pytest.fixture(scope="module")
def processor(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return AutoProcessor.from_pretrained(make_model(tmp_path_factory.mktemp("model"), "7b"))


def _prompt(text: str, *sizes: tuple[int, int], row: int = 0) -> Prompt:
    return Prompt(row, (Message("user", "<image>" * len(sizes) + text),), sizes)


@pytest.mark.parametrize("size", [(28, 28), (640, 480), (3000, 2000), (1000, 20), (10, 12), (2, 600)])
def test_a_picture_has_the_tokens_that_the_processor_makes(size: tuple[int, int], processor: Any) -> None:
    most, prompt = 200_704, _prompt("Which colour?", size)
    tokens = PromptTokens(processor, most)
    view = resize_image(Image.new("RGB", size), most)
    parts = [{"type": "image"}, {"type": "text", "text": "Which colour?"}]
    text = processor.apply_chat_template([{"role": "user", "content": parts}], add_generation_prompt=True)
    made = processor(text=[text], images=[view])["input_ids"][0]
    assert tokens.exactly(prompt) == len(made)
    assert tokens.at_most(prompt) >= tokens.exactly(prompt)


def test_instructions_and_system_messages_count(processor: Any) -> None:
    plain, told = PromptTokens(processor, None), PromptTokens(processor, None, "code")
    assert told.exactly(_prompt("Which?")) > plain.exactly(_prompt("Which?")) + 50
    led = Prompt(0, (Message("system", "Be brief."), Message("user", "Which?")), ())
    assert told.exactly(led) == plain.exactly(led)
    assert told.at_most(led) >= told.exactly(led)


def test_the_longest_question_is_found_and_those_beyond_the_limit_are_counted(processor: Any) -> None:
    tokens = PromptTokens(processor, None)
    texts = ["red " * count for count in (5, 400, 90, 300, 2)]
    prompts = [_prompt(text, (280, 280), row=index) for index, text in enumerate(texts)]
    exact = [tokens.exactly(prompt) for prompt in prompts]
    limit = sorted(exact)[2]
    found = longest_prompt(iter(prompts), tokens, limit)
    assert (found.prompts, found.too_long, found.row, found.tokens) == (5, 2, 1, max(exact))
    assert found.image_tokens == tokens.image(280, 280) == 100


def test_the_question_with_the_most_images_is_found_though_it_is_not_the_longest(processor: Any) -> None:
    small = (28, 28)
    prompts = [_prompt("red " * 300, small), _prompt("Which?", small, small, small, row=1), _prompt("Which?", small)]
    found = longest_prompt(iter(prompts), PromptTokens(processor, None), 10_000)
    assert (found.row, found.most_images, found.most_images_row) == (0, 3, 1)


def test_the_smallest_picture_fits(tmp_path: Path, processor: Any) -> None:
    assert PromptTokens(processor, 56 * 56).image(1, 1) == 4
