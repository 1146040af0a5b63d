"""Trains: `python -m codedance_verl.train recipe=cpu_demo run_dir=outputs/run data.train_files=...`.

Composes the configuration, checks what can be known before anything starts, starts Ray and the interpreter pool, and
hands over to verl's PPO/GRPO driver.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from codedance_verl.config import apply_env_vars, compose_config, print_config, write_resolved
from codedance_verl.errors import UserError


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
    write_resolved(config, run_dir)
    os.environ["TENSORBOARD_DIR"] = str(run_dir / "tensorboard")
    os.environ["VERL_FILE_LOGGER_PATH"] = str(_next_metrics_file(run_dir))
    with _time_limit(config.time_limit_s):
        _train(config, env_vars)


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


def _next_metrics_file(run_dir: Path) -> Path:
    """A file of its own for each start of a run: verl's file logger truncates what it finds."""
    folder = run_dir / "metrics"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{len(list(folder.glob('*.jsonl'))):04d}.jsonl"


class _time_limit:
    """Raises `UserError` in the main thread when the run takes longer than `seconds` (None: no limit)."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        if self._seconds is not None:
            signal.signal(signal.SIGALRM, self._expire)
            signal.setitimer(signal.ITIMER_REAL, float(self._seconds))

    def __exit__(self, *_: object) -> None:
        if self._seconds is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _expire(self, *_: object) -> None:
        raise UserError(
            f"time_limit_s={self._seconds}: the run was stopped at its time limit; "
            "start it again with a higher limit to resume from the last checkpoint"
        )


if __name__ == "__main__":
    sys.exit(main())
