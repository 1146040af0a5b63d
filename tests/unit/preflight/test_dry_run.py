"""The dry run of CodeDance-7B on a 7 B configuration without weights: every planted mistake is named by its key."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from codedance_verl import sft, train
from codedance_verl.config.compose import compose_config
from codedance_verl.preflight import run_checks
from tests.unit.preflight.folders import make_model, png, row, write

pytestmark = pytest.mark.slow

BATCH = 32
SMALLER = (f"data.train_batch_size={BATCH}", f"actor_rollout_ref.actor.ppo_mini_batch_size={BATCH}")
"""So that a few records are enough; all else is as published."""


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A command line of CodeDance-7B with nothing wrong in it."""
    folder = tmp_path_factory.mktemp("codedance_7b")
    model = make_model(folder / "model", "7b")
    (model / "model.safetensors").unlink()
    large = row(BATCH, [{"bytes": png(2000, 1500), "path": None}])
    train_file = write(folder / "train.parquet", [*map(row, range(BATCH)), large])
    val_file = write(folder / "val.parquet", [row(0)])
    return [
        "recipe=codedance_7b",
        f"run_dir={folder / 'run'}",
        f"data.train_files={train_file}",
        f"data.val_files={val_file}",
        f"actor_rollout_ref.model.path={model}",
        "sandbox=process",
        *SMALLER,
    ]


@pytest.fixture(scope="module")
def good(arguments: list[str]) -> DictConfig:
    return compose_config("train", arguments)


@pytest.fixture
def findings(good: DictConfig) -> Callable[..., list[str]]:
    """What a dry run finds with these values changed."""

    def found(**values: object) -> list[str]:
        config = copy.deepcopy(good)
        for key, value in values.items():
            OmegaConf.update(config, key, value)
        return run_checks(config, dry=True).findings

    return found


@pytest.mark.timeout(240)  # a bound for what hangs: it takes some 20 s
def test_the_recipe_has_nothing_wrong_and_shows_what_it_needs(
    arguments: list[str], good: DictConfig, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "240")
    assert train.main("train", [*arguments, "dry_run=true"]) == 0
    shown = capsys.readouterr().out
    assert "8,292.2 M parameters" in shown
    # 2000 x 1500 as the environment shows it: scaled to 1,003,520 pixels, 1156 x 868, in tokens of 28 x 28
    assert f"of 10240, {41 * 31} of them of images" in shown
    resolved = OmegaConf.load(Path(good.run_dir) / "dry_run" / "config.yaml")
    assert resolved.algorithm.codedance.preset == "paper"
    assert not (Path(good.run_dir) / "config.yaml").exists()


ALL_AT_ONCE = {
    "trainer.total_trainin_steps": "3",
    "algorithm": "grop",
    "environment.max_turns": "0",
    "environment.max_images": "0",
    "sandbox.cell_timeout_s": "0",
    "reward_preset.gamma": "-1",
    "monitors.window": "1",
    "sampling.oversample": "2",
    "actor_rollout_ref.actor.optim.lr": "3",
    "actor_rollout_ref.actor.loss_agg_mode": "mean",
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu": "8192",
    "actor_rollout_ref.actor.fsdp_config.fsdp_size": "3",
    "actor_rollout_ref.rollout.n": "1",
    "actor_rollout_ref.rollout.tensor_model_parallel_size": "3",
    "actor_rollout_ref.rollout.max_model_len": "16384",
    "data.val_files": "gone.parquet",
    "data.train_batch_size": "33",
}


def test_all_mistakes_are_told_at_once_each_by_its_key(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    planted = [f"{key}={value}" for key, value in ALL_AT_ONCE.items()]
    assert train.main("train", [*arguments, *planted, "dry_run=true"]) == 2
    told = [line.removeprefix("error: ") for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    named = {line.split(":")[0].split("=")[0] for line in told}
    assert set(ALL_AT_ONCE) <= named, set(ALL_AT_ONCE) - named
    for key, value in ALL_AT_ONCE.items():
        if key != "trainer.total_trainin_steps":  # it has no value
            assert any(line.startswith((f"{key}={value}", f"{key}: ")) for line in told), key


SOME_AT_ONCE: list[dict[str, tuple[object, str]]] = [
    {
        "seed": (-1, "seed=-1: must be a whole number from 0"),
        "dry_run": ("perhaps", "dry_run=perhaps: must be true or false"),
        "trainer.n_gpus_per_node": (0, "trainer.n_gpus_per_node=0: must be a whole number from 1"),
        "trainer.v1.trainer_mode": ("async", "trainer.v1.trainer_mode=async: must be one of sync"),
        "actor_rollout_ref.model.lora_rank": (32, "actor_rollout_ref.model.lora.merge=false: must be true with"),
        "trainer.total_training_steps": (None, "trainer.total_training_steps=null: must be"),
        "environment.min_answer_tokens": (20_000, "environment.min_answer_tokens=20000: must be less than"),
        "grading.judge.endpoints": (["http://127.0.0.1:9/v1"], "grading.judge.endpoints: none answers"),
        "algorithm.use_kl_in_reward": (True, "algorithm.use_kl_in_reward=true"),
        "data.train_files": (None, "data.train_files=None: must be a parquet file"),
        "actor_rollout_ref.model.path": (None, "actor_rollout_ref.model.path=null: no value given"),
    },
    {
        "actor_rollout_ref.actor.ppo_mini_batch_size": (
            1,
            "=1: times actor_rollout_ref.rollout.n=8 must be a multiple",
        ),
        "actor_rollout_ref.rollout.max_model_len": (200_000, "=200000: must be at most 128000"),
        "actor_rollout_ref.rollout.tensor_model_parallel_size": (16, "=16: must divide the 28 attention heads"),
        "algorithm.adv_estimator": ("gae", "critic.model.path="),
        "data.max_prompt_length": (64, "data.max_prompt_length=64: must be at least 12"),
    },
    {
        "actor_rollout_ref.actor.ulysses_sequence_parallel_size": (5, "=5: must divide the 16 training devices"),
        "actor_rollout_ref.model.path": ("/nowhere", "actor_rollout_ref.model.path=/nowhere: no config.json there"),
    },
    {"actor_rollout_ref.rollout.gpu_memory_utilization": (0.2, "=0.2: must be at least 0.2")},
    {"actor_rollout_ref.rollout.gpu_memory_utilization": (0.94, "=0.94: must be at most 0.9")},
    {"gpu_memory_gib": (24, "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=20480: must be less")},
    {"trainer.v1.trainer_mode": ("separate_async", "checkpoint_engine.backend=naive: trainer=separate_async needs")},
]


@pytest.mark.parametrize("planted", SOME_AT_ONCE, ids=lambda planted: next(iter(planted)).split(".")[-1])
def test_mistakes_are_named_with_what_is_allowed(
    planted: dict[str, tuple[object, str]], findings: Callable[..., list[str]]
) -> None:
    found = findings(**{key: value for key, (value, _) in planted.items()})
    for _, told in planted.values():
        assert any(told in line for line in found), (told, found)


def test_more_rollouts_than_places_and_queue_are_told(findings: Callable[..., list[str]]) -> None:
    (line,) = findings(**{"sandbox.queue_length": 4, "sandbox.containers": 1, "sandbox.sessions_per_container": 100})
    assert line.startswith("sandbox.queue_length=4: must be at least 28: 128 rollouts a node")


def test_micro_batches_must_divide_what_a_device_gets(findings: Callable[..., list[str]]) -> None:
    fixed = {
        "actor_rollout_ref.actor.use_dynamic_bsz": False,
        "actor_rollout_ref.rollout.log_prob_use_dynamic_bsz": False,
    }
    assert findings(**fixed) == []
    line, _too_large = findings(**fixed, **{"actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu": 3})
    assert line.startswith("actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=3: must divide the 16 rollouts")


def test_a_folder_without_processor_or_with_a_broken_configuration_is_named(
    findings: Callable[..., list[str]], tmp_path: Path
) -> None:
    broken = make_model(tmp_path / "broken")
    (broken / "processor_config.json").unlink(missing_ok=True)
    (broken / "preprocessor_config.json").unlink(missing_ok=True)
    (broken / "config.json").write_text('{"model_type": "qwen9_vl"}')
    found = findings(**{"actor_rollout_ref.model.path": str(broken)})
    assert any("its config.json makes no model" in line for line in found), found
    assert any("processor" in line for line in found), found
    assert all(line.startswith("actor_rollout_ref.model.path=") for line in found)


def test_the_cold_start_has_a_dry_run_too(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = arguments[4].split("=", 1)[1]
    turns = [
        {"role": "user", "content": "<image>Which colour?"},
        {"role": "assistant", "content": "<answer>red</answer>"},
    ]
    demonstrations = [{"messages": turns, "images": [{"bytes": png(), "path": None}]} for _ in range(128)]
    data = write(tmp_path / "sft.parquet", demonstrations)
    common = ["recipe=codedance_7b_sft", f"run_dir={tmp_path}", f"data.train_files={data}", f"model.path={model}"]
    assert sft.main([*common, "dry_run=true"]) == 0
    planted = ["data.max_length=8", "data.train_batch_size=129", "optim.lr=2", "optm.lr=1"]
    capsys.readouterr()
    assert sft.main([*common, *planted, "dry_run=true"]) == 2
    told = capsys.readouterr().err
    for line in ("optm.lr: unknown key", "optim.lr=2: must be", "data.max_length=8: must be at least"):
        assert f"error: {line}" in told
    assert "error: data.train_batch_size=129: there are only 128" in told
