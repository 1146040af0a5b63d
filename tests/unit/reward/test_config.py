from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from codedance_verl.errors import UserError
from codedance_verl.reward.config import PRESETS, RewardConfig
from codedance_verl.reward.difficulty import DifficultyForm

CONF = Path(__file__).resolve().parents[3] / "conf" / "reward"


@pytest.mark.parametrize("name", PRESETS)
def test_the_file_of_a_preset_holds_every_constant_of_it(name: str) -> None:
    values = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    assert values == asdict(PRESETS[name])
    assert RewardConfig.from_mapping(values) == PRESETS[name]


def test_every_file_is_a_preset() -> None:
    assert {path.stem for path in CONF.glob("*.yaml")} == set(PRESETS)


def test_values_replace_those_of_the_preset() -> None:
    config = RewardConfig.from_mapping({"difficulty_form": "tanh", "gamma": 2, "max_answer_chars": 50})
    assert (config.difficulty_form, config.gamma, config.max_answer_chars) == (DifficultyForm.TANH, 2.0, 50)
    assert config.delta == 0.2


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("gamma", -1, "reward_preset.gamma=-1: must be a number from 0.01 to 100"),
        ("gamma", "four", "reward_preset.gamma=four: must be a number"),
        ("gamma", True, "reward_preset.gamma=True: must be a number"),
        ("gamma", float("nan"), "reward_preset.gamma=nan: must be a number"),
        ("delta", 1.5, "reward_preset.delta=1.5: must be a number from 0 to 1"),
        ("failed_turn", 0.5, "reward_preset.failed_turn=0.5: must be a number from -10 to 0"),
        ("max_answer_chars", 0, "reward_preset.max_answer_chars=0: must be a number from 1"),
        ("max_answer_chars", 1.5, "reward_preset.max_answer_chars=1.5: must be a whole number"),
        ("difficulty_form", "cosine", "reward_preset.difficulty_form=cosine: must be one of sigmoid, tanh"),
        ("preset", "best", "reward_preset.preset=best: must be one of paper"),
        ("gama", 4, "reward_preset.gama: unknown key; known are preset, difficulty_form, gamma"),
    ],
)
def test_bad_values_are_named(key: str, value: object, told: str) -> None:
    with pytest.raises(UserError) as caught:
        RewardConfig.from_mapping({key: value})
    assert str(caught.value).startswith(told)
    assert "\n" not in str(caught.value)
