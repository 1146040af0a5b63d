from __future__ import annotations

import pytest

from codedance_verl.errors import UserError
from codedance_verl.rollout.config import EnvironmentConfig


def test_an_unknown_key_names_itself_and_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"environment\.max_turn: unknown key; known are max_turns"):
        EnvironmentConfig.from_mapping({"max_turn": 3})


@pytest.mark.parametrize("value", [0, 101, 2.5, "6", True])
def test_an_impossible_number_of_turns_names_key_value_and_range(value: object) -> None:
    with pytest.raises(UserError, match=r"environment\.max_turns=.*from 1 to 100"):
        EnvironmentConfig.from_mapping({"max_turns": value})
