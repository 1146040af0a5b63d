from __future__ import annotations

import pytest

from codedance_verl.environment.system_prompt import instructions, with_instructions
from codedance_verl.formats import FORMATS
from tests.unit.environment.harness import Say, Script, play, tokenizer

ASKED = {"role": "user", "content": "How many?"}


@pytest.mark.parametrize("name", FORMATS)
def test_the_call_that_is_shown_can_be_read(name: str) -> None:
    assert FORMATS[name].parse(instructions(FORMATS[name])).code == "input_image.crop((left, top, right, bottom))"


def test_a_system_message_of_the_record_is_kept() -> None:
    own = [{"role": "system", "content": "Be brief."}, ASKED]
    assert with_instructions(own, FORMATS["code"]) == own
    first, second = with_instructions([ASKED], FORMATS["code"])
    assert (first["role"], second) == ("system", ASKED)


@pytest.mark.parametrize("told", [True, False])
def test_the_model_is_told_what_coordinates_mean_unless_that_is_switched_off(told: bool) -> None:
    played = play(Script([Say("<answer>1</answer>")], environment={"add_system_prompt": told}))
    prompt = tokenizer().decode(played.prompts[0])
    assert ("coordinates are pixels of `input_image`" in prompt) == told
    assert prompt.endswith("How many?<|im_end|>\n<|im_start|>assistant\n")


def test_several_images_are_named() -> None:
    image = {"type": "image"}
    one, two = ({"role": "user", "content": [image] * count} for count in (1, 2))
    assert "input_images" not in with_instructions([one], FORMATS["code"])[0]["content"]
    assert "`input_images` is the list" in with_instructions([two], FORMATS["code"])[0]["content"]
