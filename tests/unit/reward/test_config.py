from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from codedance_verl.errors import UserError
from codedance_verl.reward.config import RewardConfig, Weights, weights_of
from codedance_verl.reward.difficulty import DifficultyForm
from codedance_verl.reward.presets import PRESETS
from codedance_verl.types import FinishReason

CONF = Path(__file__).resolve().parents[3] / "conf" / "reward_preset"


def composed(name: str) -> dict[str, Any]:
    """The constants of a file over those of the files that it begins with, as Hydra composes them."""
    values = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    parents = [item for item in values.pop("defaults", []) if item != "_self_"]
    below: dict[str, Any] = {}
    for parent in parents:
        below |= composed(parent)
    return below | values


def test_the_file_of_robust_explains_every_constant() -> None:
    paragraphs = (CONF / "robust.yaml").read_text().split("\n\n")[2:]
    explained = [line.split(":")[0] for part in paragraphs if part.startswith("# ") for line in part.splitlines()]
    assert {name for name in explained if not name.startswith("#")} == set(asdict(PRESETS["robust"])) - {"preset"}


@pytest.mark.parametrize("name", PRESETS)
def test_the_files_of_a_preset_hold_every_constant_of_it(name: str) -> None:
    values, own = composed(name), asdict(PRESETS[name])
    assert values == {key: list(value) if isinstance(value, tuple) else value for key, value in own.items()}
    assert RewardConfig.from_mapping(values) == PRESETS[name]


def test_every_file_is_a_preset() -> None:
    assert {path.stem for path in CONF.glob("*.yaml")} == set(PRESETS)


def test_robust_is_the_default() -> None:
    assert RewardConfig.from_mapping({}) == RewardConfig() == PRESETS["robust"]


def test_lists_are_read_as_the_tree_has_them() -> None:
    values = OmegaConf.create({"mask_finishes": ["turn_limit"], "math_sources": ["Geo"]})
    config = RewardConfig.from_mapping(values)
    assert (config.mask_finishes, config.math_sources) == ((FinishReason.TURN_LIMIT,), ("Geo",))


def test_mathematics_is_known_by_its_source() -> None:
    release = PRESETS["release"]
    assert weights_of(release, "ThinkLite_eureka") == Weights(1.2, 0.4, 2.0, 1.0)
    assert weights_of(release, "MathVision") == Weights(1.2, 0.4, 2.0, 1.0)
    assert weights_of(release, "chart") == Weights(1.0, 0.2, 1.5, 0.5)
    assert weights_of(PRESETS["paper"], "math") == Weights(1.0, 0.2, 1.5, 0.5)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"recovered_turn": 0.6}, r"reward_preset\.recovered_turn=0\.6: must be at most 0\.5"),
        ({"easy_cost": 4}, r"reward_preset\.accuracy_weight=1\.0: must be more than 1\.3"),
        (
            {"turn_credit": "batch_z", "turn_limit": 100},
            r"reward_preset\.accuracy_weight=1\.0: must be more than 100\.6",
        ),
        ({"math_sources": ["math"], "math_accuracy_weight": 0.5}, r"reward_preset\.math_accuracy_weight=0\.5: must be"),
    ],
)
def test_a_wrong_answer_may_not_outrank_a_right_one_nor_failing_pay(values: dict[str, object], told: str) -> None:
    with pytest.raises(UserError, match=told):
        RewardConfig.from_mapping(values)
    RewardConfig.from_mapping({**values, "preset": "paper", "recovered_turn": 0.0})


def test_turn_rewards_that_are_never_paid_take_nothing_off_a_right_answer() -> None:
    assert RewardConfig.from_mapping({"turn_credit": "none", "turn_limit": 100}).turn_limit == 100


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
        ("max_answer_chars", 0, "reward_preset.max_answer_chars=0: must be a whole number from 1"),
        ("max_answer_chars", 1.5, "reward_preset.max_answer_chars=1.5: must be a whole number"),
        ("difficulty_form", "cosine", "reward_preset.difficulty_form=cosine: must be one of sigmoid, tanh"),
        ("tool_term", "all", "reward_preset.tool_term=all: must be one of none, share, adaptive, per_call, gated"),
        ("turn_credit", 1, "reward_preset.turn_credit=1: must be one of none, batch_z, fixed, returns"),
        ("mask_finishes", ["answer"], "reward_preset.mask_finishes=answer: must be among no_action, turn_limit"),
        ("mask_finishes", "length", "reward_preset.mask_finishes=length: must be a list of texts"),
        ("math_sources", [1], "reward_preset.math_sources=[1]: must be a list of texts"),
        ("preset", "best", "reward_preset.preset=best: must be one of robust, paper, release"),
        ("preset", ["a"], "reward_preset.preset=['a']: must be one of robust, paper, release"),
        ("preset", {"a": 1}, "reward_preset.preset={'a': 1}: must be one of robust, paper, release"),
        ("preset", None, "reward_preset.preset=None: must be one of robust, paper, release"),
        ("custom_term", "my_terms", "reward_preset.custom_term=my_terms: must be package.module:function, such as"),
        ("custom_term", 3, "reward_preset.custom_term=3: must be package.module:function"),
        ("custom_weight", -1, "reward_preset.custom_weight=-1: must be a number from 0 to 10"),
        ("custom_timeout_s", 0, "reward_preset.custom_timeout_s=0: must be a number from 0.1 to 600"),
        ("gama", 4, "reward_preset.gama: unknown key; known are preset, difficulty_form, gamma"),
    ],
)
def test_bad_values_are_named(key: str, value: object, told: str) -> None:
    with pytest.raises(UserError) as caught:
        RewardConfig.from_mapping({key: value})
    assert str(caught.value).startswith(told)
    assert "\n" not in str(caught.value)
