"""The configuration tree: it composes, agrees with the dataclasses, and turns mistakes into one line."""

from __future__ import annotations

from dataclasses import asdict

import pytest
from omegaconf import OmegaConf

from codedance_verl.config import compose_config
from codedance_verl.errors import UserError
from codedance_verl.grading.config import GradingConfig
from codedance_verl.grading.judge.config import JudgeConfig
from codedance_verl.reward.config import RewardConfig
from codedance_verl.reward.monitors import MonitorConfig
from codedance_verl.reward.presets import PRESETS
from codedance_verl.rollout.config import EnvironmentConfig
from codedance_verl.rollout.metrics import FILTER_METRIC
from codedance_verl.rollout.sampling_config import SamplingConfig
from codedance_verl.sandbox.config import SandboxConfig

RUN = ["hardware=cpu", "run_dir=/tmp/run", "data.train_files=a.parquet", "data.val_files=b.parquet"]


def test_the_yaml_defaults_are_the_dataclass_defaults() -> None:
    config = compose_config("train", RUN)
    assert OmegaConf.to_container(config.environment) == asdict(EnvironmentConfig())
    assert OmegaConf.to_container(config.sandbox) == {**asdict(SandboxConfig()), "backend": "docker"}
    assert RewardConfig.from_mapping(config.reward_preset) == RewardConfig()
    assert MonitorConfig.from_mapping(config.monitors) == MonitorConfig()
    assert SamplingConfig.from_mapping(config.sampling) == SamplingConfig()
    assert OmegaConf.to_container(config.grading) == {
        **asdict(GradingConfig()),
        "judge": {**asdict(JudgeConfig()), "endpoints": []},
    }


def test_the_estimator_gets_the_reward_constants() -> None:
    config = compose_config("train", [*RUN, "reward_preset.turn_weight=0.5"])
    assert config.algorithm.codedance.turn_weight == 0.5


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_chosen_by_its_name(name: str) -> None:
    config = compose_config("train", [*RUN, f"reward_preset={name}"])
    assert RewardConfig.from_mapping(config.reward_preset) == PRESETS[name]


def test_the_demo_keeps_the_published_reward_unless_told_otherwise() -> None:
    assert compose_config("train", [*RUN, "recipe=cpu_demo"]).reward_preset.preset == "paper"
    assert compose_config("train", [*RUN, "recipe=cpu_demo", "reward_preset=gtpo"]).reward_preset.preset == "gtpo"


def test_groups_are_filtered_by_the_outcome_of_what_counts() -> None:
    filtered = compose_config("train", RUN).algorithm.filter_groups
    assert (filtered.enable, filtered.metric) == (False, FILTER_METRIC)


@pytest.mark.parametrize("recipe", [[], ["recipe=cpu_demo"]])
@pytest.mark.parametrize("name", ["train", "evaluate"])
@pytest.mark.parametrize("mode", ["sync", "separate_async"])
def test_every_combination_composes_and_resolves(name: str, mode: str, recipe: list[str]) -> None:
    config = compose_config(name, [*RUN, *recipe, f"mode={mode}"])
    OmegaConf.resolve(config)
    assert config.trainer.val_only is (name == "evaluate")
    assert config.trainer.v1.trainer_mode == mode


def test_an_unknown_key_names_itself_and_how_to_list_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"^trainer\.total_trainin_steps: unknown key; `--cfg job`"):
        compose_config("train", [*RUN, "trainer.total_trainin_steps=3"])


def test_an_unknown_recipe_names_the_known_ones() -> None:
    with pytest.raises(UserError, match="cpu_demo"):
        compose_config("train", [*RUN, "recipe=cpu_dmo"])


def test_a_missing_run_dir_is_asked_for() -> None:
    with pytest.raises(UserError, match=r"^run_dir: no value given; add run_dir="):
        compose_config("train", ["hardware=cpu", "data.train_files=a", "data.val_files=b"])


def test_an_unknown_hardware_names_the_choices() -> None:
    with pytest.raises(UserError, match="hardware=tpu: must be one of auto, cpu, gpu"):
        compose_config("train", [*RUN[1:], "hardware=tpu"])


def test_asking_for_a_gpu_where_there_is_none_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codedance_verl.hardware.detect", lambda: "cpu")
    with pytest.raises(UserError, match="hardware=gpu: torch finds no CUDA device; use hardware=cpu"):
        compose_config("train", [*RUN[1:], "hardware=gpu"])
