"""Trains: `python -m codedance_verl.train recipe=cpu_demo run_dir=outputs/run data.train_files=...`.

Composes the configuration, checks what can be known before anything starts, starts Ray and the interpreter pool, and
hands over to verl's PPO/GRPO driver.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from codedance_verl.config import apply_env_vars, compose_config, print_config, write_resolved
from codedance_verl.errors import UserError
from codedance_verl.guards import guarded
from codedance_verl.run_folder import last_step, new_metrics_file, publish_model


def main(config_name: str = "train", arguments: list[str] | None = None) -> int:
    """Command-line entry; returns the exit code. `--cfg job` prints the composed configuration instead of running."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if "--cfg" in arguments:
            print_config(compose_config(config_name, [item for item in arguments if item not in ("--cfg", "job")]))
            return 0
        config = compose_config(config_name, arguments)
        run(config)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def run(config: DictConfig) -> None:
    """Run a composed configuration to its end.

    Raises:
        UserError: something the user can mend (configuration, data files, disk, container engine, time limit).
    """
    env_vars = apply_env_vars(config)  # before anything imports verl, torch or vLLM
    from codedance_verl.preflight import check

    check(config)
    run_dir = Path(config.run_dir).resolve()
    _settle_validation(config, last_step(run_dir))
    write_resolved(config, run_dir)
    os.environ["TENSORBOARD_DIR"] = str(run_dir / "tensorboard")
    os.environ["VERL_FILE_LOGGER_PATH"] = str(new_metrics_file(run_dir))
    with guarded(run_dir, config.time_limit_s):
        _train(config, env_vars)
    if last_step(run_dir):  # an evaluation has none
        publish_model(run_dir, "actor")


def _settle_validation(config: DictConfig, step: int) -> None:
    """Have a run that resumes at `step` validate what it still owes.

    verl would repeat the validation before the first step, and leave out the one after the last step if that was where
    the run was interrupted: its checkpoint is written before.
    """
    trainer = config.trainer
    if step and trainer.resume_mode != "disable":
        trainer.val_before_train = trainer.test_freq > 0 and step == trainer.total_training_steps


def _train(config: DictConfig, env_vars: dict[str, str]) -> None:
    import ray
    from verl.trainer.main_ppo import TaskRunnerV1, run_ppo
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    from codedance_verl import plugin
    from codedance_verl.sandbox.config import SandboxConfig
    from codedance_verl.sandbox.pool import get_or_start_pool

    plugin.require_loaded()
    validate_config(
        config=config,
        use_reference_policy=need_reference_policy(config),
        use_critic=need_critic(config),
    )
    ray.init(**_ray_arguments(config, env_vars))
    try:
        pool = get_or_start_pool(SandboxConfig.from_mapping(config.sandbox))
        try:
            run_ppo(config, task_runner_class=TaskRunnerV1)
        finally:
            pool.shutdown()
    finally:
        ray.shutdown()


def _ray_arguments(config: DictConfig, env_vars: dict[str, str]) -> dict[str, Any]:
    """What verl's `run_ppo` would pass to `ray.init`, with our environment variables added.

    Ray must be up before `run_ppo`, since the interpreter pool is started first.
    """
    from verl.trainer.constants_ppo import get_ppo_ray_runtime_env

    runtime_env: Any = get_ppo_ray_runtime_env(config)
    ours = {"env_vars": {**env_vars, "TRANSFER_QUEUE_ENABLE": "1"}}
    for name in ("TENSORBOARD_DIR", "VERL_FILE_LOGGER_PATH"):
        ours["env_vars"][name] = os.environ[name]
    arguments: Any = OmegaConf.to_container(config.ray_kwargs.get("ray_init", OmegaConf.create({})), resolve=True)
    given = arguments.pop("runtime_env", None) or {}
    merged: Any = OmegaConf.to_container(OmegaConf.merge(runtime_env, ours, given), resolve=True)
    return {**arguments, "runtime_env": merged}


if __name__ == "__main__":
    sys.exit(main())
