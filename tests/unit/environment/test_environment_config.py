from __future__ import annotations

import pytest

from codedance_verl.environment.config import EnvironmentConfig
from codedance_verl.errors import UserError


def test_an_unknown_key_names_itself_and_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"environment\.max_turn: unknown key; known are format, .*max_turns"):
        EnvironmentConfig.from_mapping({"max_turn": 3})


@pytest.mark.parametrize("value", [0, 101, 2.5, "6", True])
def test_an_impossible_number_of_turns_names_key_value_and_range(value: object) -> None:
    with pytest.raises(UserError, match=r"environment\.max_turns=.*from 1 to 100"):
        EnvironmentConfig.from_mapping({"max_turns": value})


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("format", "xml", "must be one of code, tool_call, fence"),
        ("max_image_pixels", 10, "from 3136 to"),
        ("min_answer_tokens", 0, "from 1 to"),
        ("sandbox_retries", -1, "from 0 to"),
        ("trajectory_limit_s", 0, "a number from 1 to"),
        ("trajectory_limit_s", float("nan"), "a number from 1 to"),
        ("stall_limit_s", "long", "a number from 10 to"),
    ],
)
def test_an_impossible_value_names_key_value_and_what_is_allowed(key: str, value: object, told: str) -> None:
    with pytest.raises(UserError, match=rf"environment\.{key}=.*{told}"):
        EnvironmentConfig.from_mapping({key: value})
