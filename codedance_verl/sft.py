"""Supervised fine-tuning: `python -m codedance_verl.sft run_dir=... data.train_files=... model.path=...`.

Composes the configuration, checks what can be checked before anything starts, and runs verl's own SFT trainer on
`rollout.dataset.DemonstrationDataset`. The trained model ends up in `<run_dir>/model` as a Hugging Face folder. For
more than one GPU start it with `torchrun --nproc_per_node=N -m codedance_verl.sft ...`.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from codedance_verl.config.compose import apply_env_vars, write_resolved
from codedance_verl.entry_point import run_cli
from codedance_verl.errors import UserError
from codedance_verl.runtime.locks import run_lock
from codedance_verl.runtime.run_folder import MODEL, last_step, new_metrics_file, publish_model

if TYPE_CHECKING:
    from codedance_verl.preflight.report import Report

_READ_BY_INTERPOLATION = ("actor_rollout_ref", "critic", "reward", "ray_kwargs")
"""Nodes that the hardware group sets for RL training; SFT needs them no more once its own keys are resolved."""


def main(arguments: list[str] | None = None) -> int:
    """Command-line entry; returns the exit code. `entry_point.run_cli` has the options of the command line."""
    return run_cli("sft", arguments, _run_and_print, _dry_run_checks)


def _run_and_print(config: DictConfig) -> None:
    model = run(config)
    if _writes_files():
        print(f"trained model: {model}")


def _dry_run_checks(config: DictConfig) -> Report:
    from codedance_verl.preflight.sft import run_checks

    return run_checks(_resolve(config), dry=True)


def run(config: DictConfig) -> Path:
    """Trains to the end, from the last checkpoint if there is one; returns the folder of the trained model.

    Of several ranks the first one writes it: when another one returns, it may not be there yet.

    Raises:
        UserError: something the user can mend (configuration, data file, model folder, disk).
    """
    apply_env_vars(config)  # before anything imports verl or torch
    config = _resolve(config)
    check(config)
    run_dir = Path(config.run_dir).resolve()
    with run_lock(run_dir) if _writes_files() else contextlib.nullcontext():
        return _run_locked(config, run_dir)


def _run_locked(config: DictConfig, run_dir: Path) -> Path:
    if _writes_files():
        write_resolved(config, run_dir)
    if config.trainer.resume_mode == "auto" and last_step(run_dir) >= config.trainer.total_training_steps:
        return _publish(run_dir)
    os.environ["TENSORBOARD_DIR"] = str(run_dir / "tensorboard")
    os.environ["VERL_FILE_LOGGER_PATH"] = str(new_metrics_file(run_dir))
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # else a warning of no use here for every single sample
    _join_process_group_of_one()
    from codedance_verl import plugin

    plugin.require_loaded()
    from verl.trainer.sft_trainer import run_sft

    run_sft(config)
    return _publish(run_dir)


def _publish(run_dir: Path) -> Path:
    return publish_model(run_dir) if _writes_files() else run_dir / MODEL


def _writes_files() -> bool:
    """True on the rank that writes what all have in common."""
    return os.environ.get("RANK", "0") == "0"


def check(config: DictConfig) -> None:
    """Checks values, disk, model folder and every demonstration. Raises UserError, a line for everything wrong."""
    from codedance_verl.preflight.sft import run_checks

    findings = run_checks(config).findings
    if findings:
        raise UserError("\n".join(findings))


def _resolve(config: DictConfig) -> DictConfig:
    """Returns the configuration without interpolations, and without what was there only to be interpolated."""
    resolved = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    assert isinstance(resolved, DictConfig)
    for key in _READ_BY_INTERPOLATION:
        resolved.pop(key, None)
    return resolved


def _join_process_group_of_one() -> None:
    """Sets what `torchrun` would set for a single process, unless it did."""
    if "RANK" in os.environ:
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ.update(
        RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", LOCAL_WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )


if __name__ == "__main__":
    sys.exit(main())
