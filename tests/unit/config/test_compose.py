"""The configuration tree: it composes, agrees with the dataclasses, and turns mistakes into one line."""

from __future__ import annotations

import itertools
import json

import pytest
from omegaconf import OmegaConf
from transfer_queue.utils.common import get_node_round_robin_scheduling_strategies
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.rollout.vllm_rollout.utils import build_cli_args_from_config

from codedance_verl.config.compose import CONF_DIR, compose_config, compose_leniently
from codedance_verl.errors import UserError
from codedance_verl.reward.config import RewardConfig
from codedance_verl.reward.monitors import MonitorConfig
from codedance_verl.reward.presets import PRESETS
from codedance_verl.rollout.telemetry import FILTER_METRIC

RUN = ["hardware=cpu", "run_dir=/tmp/run", "data.train_files=a.parquet", "data.val_files=b.parquet"]


def test_the_files_of_the_reward_have_the_defaults() -> None:
    config = compose_config("train", RUN)
    assert RewardConfig.from_mapping(config.reward_preset) == RewardConfig()
    assert MonitorConfig.from_mapping(config.monitors) == MonitorConfig()


def test_the_estimator_gets_the_reward_constants() -> None:
    config = compose_config("train", [*RUN, "reward_preset.turn_weight=0.5"])
    assert config.algorithm.codedance.turn_weight == 0.5


def test_the_demo_keeps_the_published_reward_unless_told_otherwise() -> None:
    assert compose_config("train", [*RUN, "recipe=cpu_demo"]).reward_preset.preset == "robust"
    assert compose_config("train", [*RUN, "recipe=cpu_demo", "reward_preset=gtpo"]).reward_preset.preset == "gtpo"


def test_groups_are_filtered_by_the_outcome_of_what_counts() -> None:
    filtered = compose_config("train", RUN).algorithm.filter_groups
    assert (filtered.enable, filtered.metric) == (False, FILTER_METRIC)


GROUPS = {
    "model": ("tiny", "tiny_qwen3", "qwen2_5_vl_3b", "qwen2_5_vl_7b", "qwen3_vl_4b", "qwen3_vl_8b"),
    "data": ("demo", "codedance"),
    "sandbox": ("docker", "process", "auto"),
    "reward_preset": tuple(PRESETS),
    "hardware": ("cpu", "1xgpu", "8xgpu", "2x8gpu"),
    "trainer": ("sync", "colocate_async", "separate_async"),
    "algorithm": ("grpo", "ppo", "dapo"),
}
RECIPES = {
    "train": ("cpu_demo", "codedance_7b", "codedance_7b_async", "ppo"),
    "evaluate": ("cpu_demo", "codedance_7b_eval"),
    "sft": ("codedance_7b_sft",),
    "eval": ("codedance_7b_benchmarks",),
}
ROUNDS = max(map(len, GROUPS.values()))
DEVICES = {"cpu": (1, 1), "1xgpu": (1, 1), "8xgpu": (1, 8), "2x8gpu": (2, 8)}


def test_rollouts_are_kept_on_nodes_that_train(monkeypatch: pytest.MonkeyPatch) -> None:
    """TransferQueue takes any node else; that of interpreters, without CPUs for Ray, would never start its part."""
    trains, interprets = ({"NodeID": name, "Alive": True, "Resources": {"CPU": 8.0}} for name in ("b" * 56, "a" * 56))
    trains["Resources"]["GPU"] = 1.0
    monkeypatch.setattr("ray.nodes", lambda: [interprets, trains])
    storage = compose_config("train", ["run_dir=/tmp/run"]).transfer_queue.backend.SimpleStorage
    chosen = get_node_round_robin_scheduling_strategies(2, required_node_resource=storage.required_node_resource)
    assert [strategy.node_id for strategy in chosen] == ["b" * 56] * 2


def test_vllm_is_told_how_many_images_a_prompt_may_have() -> None:
    """verl hands the node to vLLM's command line as JSON."""
    config = compose_config("train", ["run_dir=/tmp/run", "environment.max_images=5", "hardware=8xgpu"])
    rollout = omega_conf_to_dataclass(config.actor_rollout_ref.rollout)
    arguments = build_cli_args_from_config(dict(rollout.engine_kwargs["vllm"]))
    assert json.loads(arguments[arguments.index("--limit_mm_per_prompt") + 1]) == {"image": 5, "video": 0}
    assert float(arguments[arguments.index("--mm_processor_cache_gb") + 1]) == 2


@pytest.mark.parametrize("hardware", ["cpu", "1xgpu", "8xgpu", "2x8gpu"])
def test_the_queue_has_units_on_every_node(hardware: str) -> None:
    config = compose_config("train", ["run_dir=/tmp/run", f"hardware={hardware}"])
    units = config.transfer_queue.backend.SimpleStorage.num_data_storage_units
    assert units == 1 if hardware == "cpu" else 2 <= units / config.trainer.nnodes <= 4


def test_demonstrations_are_scaled_as_rollouts_are() -> None:
    sft, train = (compose_config(kind, ["run_dir=/tmp/run"]) for kind in ("sft", "train"))
    assert sft.data.max_image_pixels == train.environment.max_image_pixels


def test_the_groups_have_these_options() -> None:
    for group, options in GROUPS.items():
        assert {path.stem for path in (CONF_DIR / group).glob("*.yaml")} == set(options)
    there = {path.stem for path in (CONF_DIR / "recipe").glob("*.yaml")}
    assert there == set(itertools.chain(*RECIPES.values()))


@pytest.mark.slow
@pytest.mark.parametrize("number", range(ROUNDS))
@pytest.mark.parametrize("recipe", RECIPES["train"])
def test_every_option_composes_with_every_recipe_and_takes_effect(recipe: str, number: int) -> None:
    chosen = {group: options[number % len(options)] for group, options in GROUPS.items()}
    arguments = ["run_dir=/tmp/run", f"recipe={recipe}", *(f"{group}={option}" for group, option in chosen.items())]
    config = compose_config("train", arguments)
    OmegaConf.resolve(config)
    assert config.reward_preset.preset == chosen["reward_preset"]
    assert config.sandbox.backend == chosen["sandbox"]
    assert config.trainer.v1.trainer_mode == chosen["trainer"]
    assert config.trainer.device == ("cpu" if chosen["hardware"] == "cpu" else "cuda")
    assert config.trainer.n_gpus_per_node == DEVICES[chosen["hardware"]][1]
    assert (config.algorithm.adv_estimator == "gae") is (chosen["algorithm"] == "ppo")
    assert config.algorithm.filter_groups.enable is (chosen["algorithm"] == "dapo")
    assert chosen["model"].startswith("tiny") is ("demo" in config.actor_rollout_ref.model.path)
    assert ("demo" in config.data.train_files) is (chosen["data"] == "demo")
    assert config.critic.model.path == config.actor_rollout_ref.model.path or chosen["algorithm"] != "ppo"


@pytest.mark.parametrize("recipe", RECIPES["evaluate"])
def test_an_evaluation_only_validates(recipe: str) -> None:
    config = compose_config("evaluate", ["run_dir=/tmp/run", "data.val_files=b.parquet", f"recipe={recipe}"])
    assert config.trainer.val_only is True
    assert config.data.train_files == config.data.val_files == "b.parquet"
    assert config.environment.max_turns == (10 if recipe == "codedance_7b_eval" else 3)


def test_the_recipe_of_the_publication_has_its_settings() -> None:
    config = compose_config("train", ["recipe=codedance_7b", "run_dir=/tmp/run"])
    actor, rollout, data = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout, config.data
    assert (config.trainer.nnodes, config.trainer.n_gpus_per_node, config.trainer.total_training_steps) == (2, 8, 240)
    assert (data.train_batch_size, rollout.n, actor.ppo_mini_batch_size) == (256, 8, 256)
    assert (data.max_prompt_length, data.max_response_length, rollout.temperature) == (10_240, 10_240, 1.0)
    assert (actor.optim.lr, actor.clip_ratio_low, actor.clip_ratio_high, actor.entropy_coeff) == (1e-6, 0.2, 0.2, 0.0)
    assert (actor.use_kl_loss, config.algorithm.use_kl_in_reward) == (False, False)
    assert config.algorithm.norm_adv_by_std_in_grpo is True
    assert (config.environment.max_turns, config.sandbox.cell_timeout_s, config.sandbox.on_error) == (
        6,
        15.0,
        "rollback",
    )
    assert (config.reward_preset.preset, config.actor_rollout_ref.model.path) == (
        "paper",
        "Qwen/Qwen2.5-VL-7B-Instruct",
    )


def test_the_cold_start_of_the_publication_composes() -> None:
    config = compose_config("sft", ["recipe=codedance_7b_sft", "run_dir=/tmp/run"])
    OmegaConf.resolve(config)
    assert (config.model.path, config.trainer.n_gpus_per_node) == ("Qwen/Qwen2.5-VL-7B-Instruct", 8)
    assert config.model.use_remove_padding is True


@pytest.mark.parametrize(
    "file",
    ["reward_preset/robust", "sandbox/docker", "environment", "grading", "monitors", "sampling", "hardware/1xgpu"],
)
def test_every_value_stands_under_its_explanation(file: str) -> None:
    text = (CONF_DIR / f"{file}.yaml").read_text()
    paragraphs = [part.strip() for part in text.split("\n\n") if part.strip()]
    for paragraph in paragraphs[1:]:
        lines = [line.strip() for line in paragraph.splitlines()]
        assert lines[0].startswith("#") or any(line.startswith("#") for line in lines) or len(lines) == 1, paragraph


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
    with pytest.raises(UserError, match=r"^hardware=tpu: must be one of auto, 1xgpu, 2x8gpu, 8xgpu, cpu$"):
        compose_config("train", [*RUN[1:], "hardware=tpu"])


@pytest.mark.parametrize("overrides", [[], ["hardware=auto"]])
def test_without_a_choice_the_hardware_is_that_of_the_machine(
    overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codedance_verl.config.hardware.detect", lambda: "gpu")
    assert compose_config("train", [*RUN[1:], *overrides]).trainer.device == "cuda"


def test_all_unknown_keys_are_named_at_once_and_the_reward_group_of_verl_is_told_apart() -> None:
    composed = compose_leniently("train", [*RUN, "trainer.nodes=2", "reward=paper", "datta.seed=1", "seed=7"])
    assert composed.config is not None and composed.config.seed == 7
    told = "\n".join(composed.mistakes)
    assert "trainer.nodes: unknown key" in told and "datta.seed: unknown key" in told
    assert "reward=paper: verl's own node; the rewards of this project are reward_preset=paper" in told
