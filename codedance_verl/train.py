"""Training: `python -m codedance_verl.train recipe=cpu_demo run_dir=outputs/run data.train_files=...`.

Composes the configuration, checks what can be checked before anything starts, starts Ray or joins a running cluster
(`codedance_verl.cluster`), starts the interpreter pool, and hands over to verl's PPO/GRPO driver.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from codedance_verl.cluster.connection import keep_to_loopback, ray_arguments, start
from codedance_verl.config.compose import apply_env_vars, write_resolved
from codedance_verl.config.hardware import joins
from codedance_verl.entry_point import run_cli
from codedance_verl.metrics.emit import RUN_VARIABLE, SWITCH_VARIABLE
from codedance_verl.runtime import checkpoints
from codedance_verl.runtime.locks import run_lock
from codedance_verl.runtime.progress import step_lines
from codedance_verl.runtime.run_folder import last_step, new_metrics_file, publish_model
from codedance_verl.runtime.run_limits import STOPPED_EXIT_CODE, Stopped, guarded, stops_on_signals
from codedance_verl.trainer import determinism
from codedance_verl.verl_compat.warm_workers import warm_workers

if TYPE_CHECKING:
    from codedance_verl.preflight.report import Report


def main(config_name: str = "train", arguments: list[str] | None = None) -> int:
    """Command-line entry; returns the exit code: 0 done, 2 an error the user can mend, 75 stopped and saved.

    `entry_point.run_cli` has the other options of the command line.
    """
    try:
        return run_cli(config_name, arguments, run, _dry_run_checks)
    except Stopped as stop:
        reason = getattr(stop, "cause", stop)  # raised in Ray's task, its own text is a whole traceback
        print(f"stopped: {reason}", file=sys.stderr)
        return STOPPED_EXIT_CODE


def _dry_run_checks(config: DictConfig) -> Report:
    from codedance_verl.preflight.checks import run_checks

    return run_checks(config, dry=True)


def run(config: DictConfig) -> None:
    """Runs a composed configuration to its end.

    Raises:
        UserError: something the user can mend (configuration, data files, disk, container engine, time limit).
        Stopped: SIGTERM or Ctrl-C came, and the last finished step is saved.
    """
    determinism.limit_threads(config)
    env_vars = apply_env_vars(config)  # before anything imports verl, torch, vLLM or Ray
    keep_to_loopback(config.ray_kwargs.get("ray_init", {}))
    with warm_workers(config) as python:  # which imports while the checks are made
        from codedance_verl.preflight.checks import check

        check(config)
        determinism.apply_determinism(config)
        run_dir = Path(config.run_dir).resolve()
        with run_lock(run_dir):
            _run_locked(config, run_dir, env_vars, python)


def _run_locked(config: DictConfig, run_dir: Path, env_vars: dict[str, str], python: Path | None) -> None:
    checkpoints.repair_tracker(run_dir / "checkpoints")
    _schedule_validation(config, _begins_after(config, run_dir))
    write_resolved(config, run_dir)
    os.environ["TENSORBOARD_DIR"] = str(run_dir / "tensorboard")
    os.environ["VERL_FILE_LOGGER_PATH"] = str(new_metrics_file(run_dir))
    with guarded(run_dir, config.time_limit_s, stop_grace_s=config.stop_grace_s):
        _train(config, env_vars, python)
    if last_step(run_dir):  # an evaluation has none
        publish_model(run_dir, "actor")


def _begins_after(config: DictConfig, run_dir: Path) -> int:
    """Returns the step that a run resumes after, 0 for a start from the beginning."""
    match config.trainer.resume_mode:
        case "disable":
            return 0
        case "resume_path":
            return checkpoints.step_of(Path(str(config.trainer.resume_from_path)))
        case _:
            return last_step(run_dir)


def _schedule_validation(config: DictConfig, step: int) -> None:
    """Makes a run that resumes after `step` validate only where that is still due.

    verl would repeat the validation before the first step. It would leave out the one after the last step where the run
    was interrupted there, since the checkpoint is written first.
    """
    trainer = config.trainer
    if step:
        trainer.val_before_train = trainer.test_freq > 0 and step == trainer.total_training_steps


def _train(config: DictConfig, env_vars: dict[str, str], python: Path | None) -> None:
    import ray
    from verl.trainer.main_ppo import run_ppo

    from codedance_verl import plugin
    from codedance_verl.cluster.watch import on_cluster, placement_watched
    from codedance_verl.preflight.nodes import check_flash_attention, find_room
    from codedance_verl.sandbox.config import SandboxConfig
    from codedance_verl.sandbox.placement import living_nodes
    from codedance_verl.sandbox.pool import get_or_start_pool
    from codedance_verl.trainer.runner import RemoteRunner

    plugin.require_loaded()
    metrics_file, total = Path(os.environ["VERL_FILE_LOGGER_PATH"]), config.trainer.total_training_steps
    arguments, run_dir = _ray_arguments(config, env_vars, python), Path(config.run_dir).resolve()
    start(arguments)
    try:
        find_room(config, living_nodes)
        if joins(arguments["address"]):
            check_flash_attention(config, living_nodes())
        with (
            placement_watched(run_dir, config.placement_limit_s),
            on_cluster(arguments["address"], run_dir, _inputs(config)),
        ):
            pool = get_or_start_pool(SandboxConfig.from_mapping(config.sandbox))
            try:
                # only now, as Ray has set handlers of its own
                with stops_on_signals(run_dir), step_lines(metrics_file, total):
                    run_ppo(config, task_runner_class=RemoteRunner)
            finally:
                pool.shutdown()
    finally:
        ray.shutdown()


def _ray_arguments(config: DictConfig, env_vars: dict[str, str], python: Path | None = None) -> dict[str, Any]:
    """Returns what verl's `run_ppo` would pass to `ray.init`, with our environment variables and the workers' Python.

    Ray must be up before `run_ppo`, since the interpreter pool is started first.
    """
    from verl.trainer.constants_ppo import get_ppo_ray_runtime_env

    runtime_env: Any = get_ppo_ray_runtime_env(config)
    ours = {**env_vars, "TRANSFER_QUEUE_ENABLE": "1", RUN_VARIABLE: Path(str(config.run_dir)).resolve().name}
    passed_on = ("TENSORBOARD_DIR", "VERL_FILE_LOGGER_PATH", SWITCH_VARIABLE)
    ours |= {name: os.environ[name] for name in passed_on if name in os.environ}
    ray_init: Any = OmegaConf.to_container(config.ray_kwargs.get("ray_init", OmegaConf.create({})), resolve=True)
    arguments = ray_arguments(ray_init, {**runtime_env, "env_vars": {**runtime_env["env_vars"], **ours}})
    if python is not None:
        arguments["runtime_env"]["py_executable"] = str(python)  # where verl's tree has null
    return arguments


def _inputs(config: DictConfig) -> dict[str, str]:
    """Returns the paths of data and model by key; all nodes of a cluster must see them."""
    found = {"actor_rollout_ref.model.path": str(Path(str(config.actor_rollout_ref.model.path)).expanduser())}
    for key in ("train_files", "val_files"):
        files = config.data[key]
        for index, path in enumerate([files] if isinstance(files, str) else files):
            found[f"data.{key}[{index}]"] = str(path)
    return found


if __name__ == "__main__":
    sys.exit(main())
