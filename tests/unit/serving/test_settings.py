"""Which model is meant and under which settings: the file, and what a run passes on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from codedance_verl.config.compose import compose_config
from codedance_verl.errors import UserError
from codedance_verl.serving.config import ServingConfig
from codedance_verl.serving.settings import SETTINGS_FILE, find_model, inherited, load, settings_document


def make_run(folder: Path, *overrides: str) -> Path:
    """A run's folder with its configuration and a model that is only named."""
    config = compose_config("train", ["hardware=cpu", "recipe=cpu_demo", f"run_dir={folder}", *overrides])
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "config.json").write_text("{}")
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(config, resolve=False))
    return folder


def test_a_run_passes_on_what_its_model_got_to_see(tmp_path: Path) -> None:
    run = make_run(
        tmp_path / "run", "sandbox.cell_timeout_s=7", "sandbox.containers=9", "sampling.code_temperature=0.5"
    )
    settings = load(str(run), ["hardware=cpu", "environment.max_turns=9"])
    assert settings.model == str(run / "model")
    assert (settings.name, settings.origin) == ("run", run / "config.yaml")
    assert (settings.environment.add_system_prompt, settings.environment.max_turns) == (False, 9)
    assert (settings.sandbox.cell_timeout_s, settings.sandbox.containers) == (7, 2)
    assert (settings.serving.response_tokens, settings.serving.code_temperature) == (352, 0.5)
    assert settings.env_vars["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    assert (settings.serving.engine.dtype, settings.serving.engine.enforce_eager) == ("float32", True)


@pytest.mark.parametrize("place", ["model", "checkpoints/global_step_5/actor/huggingface"])
def test_a_model_within_a_run_is_known_to_be_its(tmp_path: Path, place: str) -> None:
    run = make_run(tmp_path / "run")
    (run / place).mkdir(parents=True, exist_ok=True)
    (run / place / "config.json").write_text("{}")
    assert find_model(str(run / place)) == (str(run / place), run / "config.yaml")


def test_a_run_from_before_a_key_was_renamed_passes_on_its_value(tmp_path: Path) -> None:
    origin = make_run(tmp_path / "run", "environment.max_turns=9") / "config.yaml"
    origin.write_text(origin.read_text().replace("trajectory_limit_s: 1800.0", "max_seconds: 77.0"))
    values = inherited(origin)
    assert "environment.max_seconds" not in values
    assert load(str(tmp_path / "run"), ["hardware=cpu"]).environment.trajectory_limit_s == 77


def test_an_exported_model_carries_its_settings(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "environment.max_turns=8")
    out = tmp_path / "exported"
    out.mkdir()
    (out / "config.json").write_text("{}")
    (out / SETTINGS_FILE).write_text(settings_document(run / "config.yaml"))
    assert inherited(out / SETTINGS_FILE) == inherited(run / "config.yaml")
    settings = load(str(out), ["hardware=cpu"])
    assert (settings.environment.max_turns, settings.serving.response_tokens, settings.name) == (8, 352, "exported")


def test_a_model_of_sft_may_have_the_settings_of_a_run_of_rl(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "environment.max_turns=8")
    for folder in ("sft", "lone"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text("{}")
    settings = load(str(tmp_path / "sft"), ["hardware=cpu", f"serving.settings_of={run}"])
    assert (settings.model, settings.origin) == (str(tmp_path / "sft"), run / "config.yaml")
    assert (settings.environment.max_turns, settings.serving.response_tokens) == (8, 352)
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "config.yaml").write_text("- a\n")
    for other, fault in (
        ("lone", r"^serving\.settings_of=.*lone: no run of RL, nor a model from one"),
        ("nowhere", r"^serving\.settings_of=.*nowhere: no run of RL"),
        ("list", r"list/config\.yaml: holds no configuration of a run"),
    ):
        with pytest.raises(UserError, match=fault):
            load(str(tmp_path / "sft"), ["hardware=cpu", f"serving.settings_of={tmp_path / other}"])
    shutil.rmtree(run / "model")
    assert load(str(tmp_path / "sft"), ["hardware=cpu", f"serving.settings_of={run}"]).environment.max_turns == 8


def test_a_model_of_unknown_origin_has_the_settings_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    settings = load(str(tmp_path), ["hardware=cpu", "serving.model_name=mine"], containers=1)
    assert (settings.origin, settings.name, settings.environment.add_system_prompt) == (None, "mine", True)
    assert (settings.sandbox.containers, settings.sandbox.backend) == (1, "auto")
    assert load("org/name", ["hardware=cpu"]).model == "org/name"


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["serving.port=70000"], r"serving\.port=70000: must be a whole number from 0 to 65535"),
        (["serving.temperature=3"], r"serving\.temperature=3: must be a number from 0 to 2"),
        (["serving.engine.dtype=int8"], r"serving\.engine\.dtype=int8: must be one of auto, float32"),
        (["serving.prt=1"], r"unknown key"),
        (["environment.max_turns=0"], r"environment\.max_turns=0"),
        (["serving.host=0.0.0.0", "sandbox.backend=process"], r"sandbox\.backend=process: no security boundary"),
    ],
)
def test_bad_settings_are_named(tmp_path: Path, overrides: list[str], told: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=told):
        load(str(tmp_path), ["hardware=cpu", *overrides])


def test_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no model there; give a run's folder"):
        load(str(tmp_path))


def test_where_other_machines_may_ask_there_is_a_key_and_a_container(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    settings = load(str(tmp_path), ["hardware=cpu", "serving.host=0.0.0.0"])
    assert settings.sandbox.backend == "docker"
    with pytest.raises(UserError, match=r"serving\.host=0\.0\.0\.0: .* set CODEDANCE_API_KEY"):
        settings.serving.api_key({"CODEDANCE_API_KEY": ""})
    assert settings.serving.api_key({"CODEDANCE_API_KEY": "secret"}) == "secret"
    for host in ("127.0.0.1", "::1", "localhost"):
        assert ServingConfig(host=host).api_key({}) is None
