from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from codedance_verl.config.node import Node, SettingsError, allowed, bounds
from codedance_verl.errors import UserError
from codedance_verl.reward import presets
from codedance_verl.reward.config import OPTIONAL_MASKS, RewardConfig, Weights, weights_of
from codedance_verl.reward.difficulty import DifficultyForm
from codedance_verl.reward.presets import PRESETS, preset_values
from codedance_verl.reward.tool_terms import _FORMULAS, PerCallTerm, ShareTerm, ToolTerm
from codedance_verl.types import FinishReason

CONF = Path(__file__).resolve().parents[3] / "conf" / "reward_preset"


def composed(name: str) -> dict[str, Any]:
    """The constants of a preset as Hydra composes them."""
    with initialize_config_dir(config_dir=str(CONF.parent), version_base=None):
        values: Any = OmegaConf.to_container(compose(f"reward_preset/{name}").reward_preset)
    return dict(values)


def paragraphs(path: Path) -> dict[str, str]:
    """The comment above each key of a file; keys without one of their own share that of the key before."""
    found, comment = dict[str, str](), ""
    for part in path.read_text().split("\n\n"):
        lines = part.splitlines()
        comment = " ".join(line.removeprefix("# ") for line in lines if line.startswith("#"))
        found |= {line.split(":")[0]: comment for line in lines if not line.startswith(("#", " ", "defaults"))}
    return found


NODES: tuple[tuple[type[Node], Path], ...] = (
    (RewardConfig, CONF / "robust.yaml"),
    *((term, CONF / "tool_term" / f"{term().name}.yaml") for term in get_args(ToolTerm)),
)


@pytest.mark.parametrize(("node", "path"), NODES, ids=lambda item: item.stem if isinstance(item, Path) else "")
def test_a_file_explains_every_constant_and_gives_its_range_and_default(node: type[Node], path: Path) -> None:
    explained, fields = paragraphs(path), node.model_fields
    assert set(explained) - {"preset", "name"} == set(fields) - {"preset", "name", "tool_term"}
    for name, comment in explained.items():
        assert comment or name in ("preset", "name"), name
        if name in fields and bounds(fields[name]) != (None, None):
            assert allowed(fields[name]).split("number ")[1].removeprefix("from ") in comment.replace(",", ""), name
        if isinstance(kind := fields[name].annotation, type) and issubclass(kind, StrEnum):
            assert all(f"`{choice}`" in comment for choice in kind), name
    values = yaml.safe_load(path.read_text())
    values.pop("defaults", None)
    defaults = node().model_dump(mode="json")
    defaults.pop("tool_term", None)
    assert values == defaults


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_read_as_hydra_composes_it_and_holds_every_constant(name: str) -> None:
    assert composed(name) == preset_values(name) == PRESETS[name].model_dump(mode="json")
    assert RewardConfig.from_mapping(composed(name)) == PRESETS[name]
    assert PRESETS[name].preset == name


def test_every_tool_term_has_a_formula_and_a_file() -> None:
    names = {term().name for term in get_args(ToolTerm)}
    assert set(_FORMULAS) == set(get_args(ToolTerm))
    assert {path.stem for path in (CONF / "tool_term").glob("*.yaml")} == names | {"share_release"}


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
        ({"tool_term": {"easy_cost": 4}}, r"reward_preset\.accuracy_weight=1\.0: must be more than 1\.3"),
        (
            {"turn_credit": "batch_z", "max_turn_penalty": 100},
            r"reward_preset\.accuracy_weight=1\.0: must be more than 100\.6",
        ),
        ({"math_sources": ["math"], "math_accuracy_weight": 0.5}, r"reward_preset\.math_accuracy_weight=0\.5: must be"),
        ({"call_value": 0.5}, r"reward_preset\.call_value=0\.5: must be 0 with tool_term adaptive"),
        ({"fatal_failures": 3}, r"reward_preset\.fatal_failures=3: must be 0 with tool_term adaptive"),
    ],
)
def test_a_wrong_answer_may_not_outrank_a_right_one_nor_failing_pay(values: dict[str, object], told: str) -> None:
    with pytest.raises(UserError, match=told):
        RewardConfig.from_mapping(values)
    rest = {key: value for key, value in values.items() if key != "tool_term"}
    RewardConfig.from_mapping({**rest, "preset": "paper", "recovered_turn": 0.0})


@pytest.mark.parametrize(
    ("term", "line"),
    [
        (
            {"name": "share", "easy_cost": 2, "call_bonus": 0.1},
            "tool_term.name=share: takes no easy_cost, call_bonus; leave them out",
        ),
        (
            {"tool_coef_incorrect": 0},
            "tool_term.name=adaptive: takes no tool_coef_incorrect; share does, chosen as reward_preset/tool_term=NAME",
        ),
        ({"name": "none", "call_bonus": 0.1}, "tool_term.name=none: takes no call_bonus; per_call or gated does"),
        ({"easy_cots": 0}, "tool_term.easy_cots: unknown key; known are name, tool_coef_correct"),
        ({"name": "gated", "min_base_reward": 11}, "tool_term.min_base_reward=11: must be a number from -10 to 10"),
        ({"name": "all"}, "tool_term.name=all: must be one of none, share, adaptive, per_call, gated"),
        ({"name": ["share"]}, "tool_term.name=['share']: must be one of none, share, adaptive, per_call, gated"),
        ("share", "tool_term=share: is chosen together with its constants, as reward_preset/tool_term=share"),
        (
            None,
            "tool_term=None: must be one of none, share, adaptive, per_call, gated, benefit, chosen as",
        ),
        (["share"], "tool_term=['share']: must be one of none, share, adaptive, per_call, gated"),
    ],
)
def test_a_constant_without_effect_under_the_chosen_term_is_refused(term: object, line: str) -> None:
    with pytest.raises(SettingsError) as caught:
        RewardConfig.from_mapping({"tool_term": term})
    (fault,) = caught.value.faults
    assert fault.line.startswith(f"reward_preset.{line}")


def test_all_faults_are_named_at_once_those_of_the_whole_node_too() -> None:
    with pytest.raises(SettingsError) as caught:
        RewardConfig.from_mapping({"gamma": 0, "recovered_turn": 5, "accuracy_weight": 0.1})
    keys = [fault.key for fault in caught.value.faults]
    assert keys == [f"reward_preset.{key}" for key in ("gamma", "recovered_turn", "accuracy_weight")]


def test_null_stands_for_an_empty_list() -> None:
    config = RewardConfig.from_mapping({"mask_finishes": None, "math_sources": None})
    assert (config.mask_finishes, config.math_sources) == ((), ())


def test_a_preset_of_a_user_is_read_when_it_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong with one is an error of that one alone, and names its file."""
    shutil.copytree(CONF, tmp_path / "reward_preset")
    (tmp_path / "reward_preset" / "broken.yaml").write_text("- a list\n")
    own = "defaults:\n  - robust\n  - _self_\n\npreset: own\ngamma: 1e-1\ntool_term:\n  easy_cost: 1.0\n"
    (tmp_path / "reward_preset" / "own.yaml").write_text(own)
    monkeypatch.setattr(presets, "_folder", lambda: tmp_path / "reward_preset")
    presets.preset_names.cache_clear()
    try:
        found = RewardConfig.from_mapping({"preset": "own"})
        assert (found.gamma, found.tool_term.name, found.tool_term.easy_cost) == (0.1, "adaptive", 1.0)  # type: ignore[union-attr]
        with pytest.raises(UserError, match=r"broken\.yaml: must be a mapping"):
            RewardConfig.from_mapping({"preset": "broken"})
    finally:
        presets.preset_names.cache_clear()


def test_constants_of_a_term_stand_over_those_of_the_preset_or_the_defaults_of_another_term() -> None:
    changed = RewardConfig.from_mapping({"preset": "release", "tool_term": {"tool_coef_correct": 3}}).tool_term
    assert changed == ShareTerm(tool_coef_correct=3.0, math_tool_coef_correct=2.0, math_tool_coef_incorrect=1.0)
    other = RewardConfig.from_mapping({"preset": "release", "tool_term": {"name": "per_call", "call_bonus": 1}})
    assert other.tool_term == PerCallTerm(call_bonus=1.0)
    assert RewardConfig.from_mapping({"preset": "release", "tool_term": {"name": "per_call"}}).math_sources


def test_a_term_is_chosen_with_its_constants_and_refuses_those_of_another() -> None:
    def chosen(*overrides: str) -> RewardConfig:
        with initialize_config_dir(config_dir=str(CONF.parent), version_base=None):
            return RewardConfig.from_mapping(compose("reward_preset/release", list(overrides)).reward_preset)

    assert chosen("reward_preset/tool_term=per_call").tool_term == PerCallTerm()
    assert chosen("reward_preset/tool_term=share").tool_term == ShareTerm()
    with pytest.raises(
        SettingsError, match=r"reward_preset\.tool_term\.name=per_call: takes no tool_coef_correct, tool_coef"
    ):
        chosen("reward_preset.tool_term.name=per_call")


def test_turn_rewards_that_are_never_paid_take_nothing_off_a_right_answer() -> None:
    assert RewardConfig.from_mapping({"turn_credit": "none", "max_turn_penalty": 100}).max_turn_penalty == 100


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
        ("turn_credit", 1, "reward_preset.turn_credit=1: must be one of none, batch_z, fixed, routed, returns"),
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


def shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(value) or "-"
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def rows(nodes: Sequence[type[Node]], values: Sequence[dict[str, Any]], prefix: str = "") -> list[str]:
    """Rows of docs/reward.md: constant, its range, its value in each preset, "-" where the term does not have it."""
    hidden = ("preset", "name")
    fields = {name: field for node in nodes for name, field in node.model_fields.items() if name not in hidden}
    found = []
    for name, field in fields.items():
        range_ = WORDS.get(name) or re.sub(r"^a (whole )?number from |^one of ", "", allowed(field))
        cells = [shown(one.get(name)) for one in values]
        found.append(f"| `{prefix}{name}` | {range_} | {' | '.join(cells)} |")
    return found


WORDS = {
    "mask_finishes": ", ".join(OPTIONAL_MASKS),
    "math_sources": "texts",
    "tool_term": ", ".join(term().name for term in get_args(ToolTerm)),
    "custom_term": "package.module:function",
}
"""Ranges in fewer words than those of a message."""


def test_the_documented_constants_are_those_of_the_presets() -> None:
    presets = [preset.model_dump(mode="json") for preset in PRESETS.values()]
    terms = [preset["tool_term"] for preset in presets]
    flat = [{**preset, "tool_term": preset["tool_term"]["name"]} for preset in presets]
    wanted = [*rows([RewardConfig], flat), *rows(get_args(ToolTerm), terms, "tool_term.")]
    page = (CONF.parents[1] / "docs" / "reward.md").read_text().split("## Constants")[1].split("\n## ")[0]
    assert [line for line in page.splitlines() if line.startswith("| `")] == wanted
    head = "| constant | range | " + " | ".join(PRESETS) + " |"
    assert page.count(head) == 2
