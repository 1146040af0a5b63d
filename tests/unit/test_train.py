from __future__ import annotations

from pathlib import Path

import pytest
import ray
from omegaconf import DictConfig
from ray.exceptions import RayTaskError

from codedance_verl import train
from codedance_verl.config.compose import compose_config
from codedance_verl.errors import UserError
from codedance_verl.preflight import checks
from codedance_verl.runtime.locks import run_lock
from codedance_verl.runtime.run_limits import SAVE_FILE
from codedance_verl.train import _begins_after, _schedule_validation

ARGUMENTS = ["recipe=cpu_demo", "run_dir=/nonexistent", "data.train_files=a", "data.val_files=b"]


@pytest.mark.parametrize(
    ("step", "overrides", "validates_first"),
    [
        (0, ["trainer.val_before_train=true"], True),
        (0, ["trainer.test_freq=4"], False),
        (2, ["trainer.val_before_train=true", "trainer.test_freq=4"], False),
        (4, ["trainer.test_freq=4"], True),
        (4, ["trainer.test_freq=-1"], False),
    ],
    ids=["new, asked to", "new", "was done before", "interrupted in its last one", "has none"],
)
def test_a_run_that_resumes_validates_what_it_owes(step: int, overrides: list[str], validates_first: bool) -> None:
    config = compose_config("train", [*ARGUMENTS, "trainer.total_training_steps=4", *overrides])
    _schedule_validation(config, step)
    assert config.trainer.val_before_train is validates_first


@pytest.mark.parametrize(
    ("overrides", "step"),
    [
        ([], 4),
        (["trainer.resume_mode=disable"], 0),
        (["trainer.resume_mode=resume_path", "trainer.resume_from_path=/runs/b/global_step_2"], 2),
    ],
    ids=["goes on", "starts over", "goes back"],
)
def test_where_a_run_begins(tmp_path: Path, overrides: list[str], step: int) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("4")
    assert _begins_after(compose_config("train", [*ARGUMENTS, *overrides]), tmp_path) == step


@pytest.mark.parametrize("dry_run", ["true", "false"])
@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("run_dir=2024", "run_dir=2024: must be the path of a folder; one whose name is a number is written ./2024"),
        ("run_dir=null", "run_dir=None: must be the path of a folder; one whose name is a number is written ./2024"),
        ("run_dir=''", "run_dir=: must be the path of a folder; one whose name is a number is written ./2024"),
        ("env_vars=null", "env_vars=None: must be a mapping of names to values, {} for none"),
    ],
)
def test_what_is_read_first_is_checked_first(
    override: str, told: str, dry_run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main("train", [*ARGUMENTS, "hardware=cpu", override, f"dry_run={dry_run}"]) == 2
    assert capsys.readouterr().err == f"error: {told}\n"


def test_a_run_checks_what_its_dry_run_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a run adds by itself would else be refused as if the user had asked for it."""
    checked = []

    def check(config: DictConfig) -> None:
        checked.append(config.copy())
        raise UserError("enough")

    monkeypatch.setattr(checks, "check", check)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # restored after the run has set it
    with pytest.raises(UserError, match="enough"):
        train.run(compose_config("train", [*ARGUMENTS, "deterministic=true"]))
    assert checked == [compose_config("train", [*ARGUMENTS, "deterministic=true", "+env_vars.OMP_NUM_THREADS='1'"])]


def test_what_the_trainer_says_in_its_process_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> None:
        raise RayTaskError("run", "a long traceback", UserError("worker 1 has died")).as_instanceof_cause()

    monkeypatch.setattr(train, "run", fail)
    assert train.main(arguments=ARGUMENTS) == 2
    assert capsys.readouterr().err == "error: worker 1 has died\n"


def test_a_cluster_that_does_not_answer_is_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(**_: object) -> None:
        raise ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:6379")

    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setattr(ray, "init", refused)
    monkeypatch.setattr(checks, "check", lambda config: None)
    assert train.main("train", [*ARGUMENTS, "hardware=cpu", f"run_dir={tmp_path}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: no Ray cluster answers (Failed to connect to Ray cluster at 10.0.0.1:6379)")


def test_a_second_start_leaves_what_the_first_one_was_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As where a command is repeated while its first start saves."""
    monkeypatch.setattr(checks, "check", lambda config: None)
    (tmp_path / SAVE_FILE).touch()
    with run_lock(tmp_path):
        assert train.main("train", [*ARGUMENTS, "hardware=cpu", f"run_dir={tmp_path}"]) == 2
    assert capsys.readouterr().err.startswith(f"error: run_dir={tmp_path}: another run is in progress there; ")
    assert (tmp_path / SAVE_FILE).exists()
