"""Checks what can be known before a run starts. Each finding is one `UserError` that names cause and cure."""

from __future__ import annotations

import shutil
from pathlib import Path

from omegaconf import DictConfig

from codedance_verl.errors import UserError
from codedance_verl.grading import GradingConfig
from codedance_verl.reward import advantage
from codedance_verl.reward.config import RewardConfig
from codedance_verl.reward.monitors import MonitorConfig
from codedance_verl.rollout.config import EnvironmentConfig
from codedance_verl.rollout.metrics import FILTER_METRIC
from codedance_verl.rollout.sampling_config import SamplingConfig
from codedance_verl.sandbox.config import SandboxConfig

MIN_FREE_BYTES = 1 << 30


def check(config: DictConfig) -> None:
    """Check configuration nodes of ours, batch sizes, disk, model folder and every record of the data files.

    Raises:
        UserError: the first thing found wrong.
    """
    EnvironmentConfig.from_mapping(config.environment)
    SandboxConfig.from_mapping(config.sandbox)
    SamplingConfig.from_mapping(config.sampling)
    MonitorConfig.from_mapping(config.monitors)
    grading = GradingConfig.from_mapping(config.grading)
    advantage.check_estimator(config.algorithm, RewardConfig.from_mapping(config.reward_preset))
    _check_filter(config)
    _check_seed(config)
    _check_batch(config)
    check_output_folder(Path(config.run_dir))
    _check_model(config)
    _check_data(config)
    _check_judge(config, grading)
    _check_engine(config)


def _check_seed(config: DictConfig) -> None:
    if not isinstance(config.seed, int) or not 0 <= config.seed < 2**31:
        raise UserError(f"seed={config.seed!r}: must be a whole number from 0 to 2^31 - 1")


def _check_filter(config: DictConfig) -> None:
    """verl would end the first step of a run whose rollouts do not report what its group filter compares."""
    known = (FILTER_METRIC, "reward")
    chosen = config.algorithm.filter_groups
    if chosen.enable and chosen.metric not in known:
        raise UserError(f"algorithm.filter_groups.metric={chosen.metric}: must be one of {', '.join(known)}")


def _check_batch(config: DictConfig) -> None:
    batch, mini = config.data.train_batch_size, config.actor_rollout_ref.actor.ppo_mini_batch_size
    if batch % mini:
        raise UserError(
            f"data.train_batch_size={batch}: must be a multiple of actor_rollout_ref.actor.ppo_mini_batch_size={mini}"
        )


def check_output_folder(folder: Path, min_free_bytes: int = MIN_FREE_BYTES) -> None:
    """Raise `UserError` when `folder` cannot be written or its disk has less than `min_free_bytes` free."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".write-probe"
        probe.write_bytes(b"\0" * 4096)
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written ({error.strerror}); free some space or choose another folder"
        ) from error
    free = shutil.disk_usage(folder).free
    if free < min_free_bytes:
        raise UserError(
            f"{folder}: {free / 2**20:.0f} MiB free, at least {min_free_bytes / 2**20:.0f} MiB are needed for "
            "checkpoints and trajectories; free some space or choose another folder"
        )


def _check_model(config: DictConfig) -> None:
    path = str(config.actor_rollout_ref.model.path)
    looks_local = path.startswith((".", "/", "~"))
    if looks_local and not (Path(path).expanduser() / "config.json").is_file():
        raise UserError(f"actor_rollout_ref.model.path={path}: no config.json there; give a Hugging Face model folder")


def _check_data(config: DictConfig) -> None:
    """Read every record. With `skip_bad_records` the good ones are copied to `<run_dir>/data` and used from there."""
    from codedance_verl.data.schema import check_files, keep_good_rows

    for key in ("train_files", "val_files"):
        files = config.data[key]
        paths = [Path(path) for path in ([files] if isinstance(files, str) else files)]
        skipped = check_files(paths, skip_bad_records=bool(config.skip_bad_records))
        if not skipped:
            continue
        for line in skipped:
            print(f"skipped: {line}", flush=True)
        copies = [Path(config.run_dir) / "data" / f"{key}_{index}.parquet" for index in range(len(paths))]
        for path, copy in zip(paths, copies, strict=True):
            keep_good_rows(path, copy)
        config.data[key] = [str(copy) for copy in copies]


def _check_judge(config: DictConfig, grading: GradingConfig) -> None:
    """A configured judge must answer; without one, no record may need it. Judges that do not answer are told."""
    from codedance_verl.data.schema import first_open_record
    from codedance_verl.grading.judge.probe import unreachable

    if grading.judge.endpoints:
        silent = unreachable(grading.judge)
        for line in silent:
            print(f"judge: {line}", flush=True)
        if len(silent) == len(grading.judge.endpoints):
            raise UserError(f"grading.judge.endpoints: none answers; {silent[0]}")
    elif grading.open_answers == "judge":
        for key in ("train_files", "val_files"):
            files = config.data[key]
            for path in [files] if isinstance(files, str) else files:
                if (row := first_open_record(path)) is not None:
                    raise UserError(
                        f"{path} row {row}: its answer needs a judge (reward_model.style) and there is none; "
                        "name one in grading.judge.endpoints, or set grading.open_answers=text"
                    )


def _check_engine(config: DictConfig) -> None:
    """With `sandbox.backend=docker` an engine must answer (one is started where we may) and hold the image."""
    if config.sandbox.backend != "docker":
        return
    from codedance_verl.sandbox.engine import ensure_engine
    from codedance_verl.sandbox.image import require_image

    client = ensure_engine(may_start=True)
    try:
        require_image(client, str(config.sandbox.image))
    finally:
        client.close()
