"""Checks of the files of a run: its folder, the model's files, every record of the data files."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig

from codedance_verl.cluster.connection import check_paths
from codedance_verl.config.hardware import joins
from codedance_verl.data.checking import Checked, check_file, keep_good_rows, progress_line
from codedance_verl.data.parquet import is_parquet
from codedance_verl.data.rows import Keys, Kind
from codedance_verl.errors import UserError
from codedance_verl.preflight.report import Report, at
from codedance_verl.runtime.checkpoints import can_be_resumed, step_of
from codedance_verl.sandbox.docker.sizing import ImageLoad

MIN_FREE_BYTES = 1 << 30
MAX_SOCKET_BYTES = 107
"""Longest path of a Unix socket on Linux, without the closing zero (`sun_path` of unix(7))."""
_SOCKET = "/session_2026-01-31_00-00-00_000000_{pid}/sockets/plasma_store"  # the longest of ray._private.node.Node
WEIGHT_FILES = ("*.safetensors", "*.bin")


def check_output_folder(folder: Path, min_free_bytes: int = MIN_FREE_BYTES) -> None:
    """Raises `UserError` when `folder` cannot be written or its disk has less than `min_free_bytes` free."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".write-probe-") as probe:  # each rank has its own
            probe.write(b"\0" * 4096)  # a block: an empty file can be made on a full disk
            probe.flush()
    except OSError as error:
        raise UserError(
            f"run_dir={folder}: cannot be written ({error.strerror}); free some space or choose another folder"
        ) from error
    free = shutil.disk_usage(folder).free
    if free < min_free_bytes:
        raise UserError(
            f"run_dir={folder}: {free / 2**20:.0f} MiB free, at least {min_free_bytes / 2**20:.0f} MiB are needed for "
            "checkpoints and trajectories; free some space or choose another folder"
        )


def check_run_folder(config: DictConfig, report: Report) -> None:
    """Checks that the run's folder can be written and has room."""
    folder = Path(config.run_dir)
    with report.collecting():
        check_output_folder(folder)
        report.add_row("files", "run_dir", f"{folder}, {shutil.disk_usage(folder).free / 2**30:.0f} GiB free")


def check_checkpoint_folder(config: DictConfig, report: Report) -> None:
    """Checks that checkpoints go to the folder that a resume reads."""
    given, needed = at(config, "trainer.default_local_dir"), Path(config.run_dir) / "checkpoints"
    if not isinstance(given, str) or Path(given).resolve() != needed.resolve():
        report.add_error(
            f"trainer.default_local_dir={given}: must be {needed}; choose another run_dir to have them elsewhere"
        )


def check_start(config: DictConfig, report: Report) -> None:
    """Checks that `trainer.resume_mode=resume_path` names a whole checkpoint."""
    if at(config, "trainer.resume_mode") != "resume_path":
        return
    given = at(config, "trainer.resume_from_path")
    name = Path(given).name if isinstance(given, str) else ""
    if not step_of(Path(name)) or not given.endswith(name):  # verl takes what follows `global_step_` for a number
        report.add_error(
            f"trainer.resume_from_path={given}: must be a checkpoint's folder, .../global_step_N without a slash at "
            "its end, with trainer.resume_mode=resume_path"
        )
    elif not can_be_resumed(Path(given)):
        report.add_error(f"trainer.resume_from_path={given}: no whole checkpoint there; choose another one")


def check_cluster_paths(config: DictConfig, report: Report) -> None:
    """Checks that no path is relative on a cluster that the run joins; names of Hugging Face's hub are no paths."""
    inputs = dict[str, str]()
    for key in ("train_files", "val_files"):
        with contextlib.suppress(UserError):  # `check_data` reports it
            paths = data_paths(config, key)
            inputs |= {f"data.{key}" + f"[{index}]" * (len(paths) > 1): str(path) for index, path in enumerate(paths)}
    model = at(config, "actor_rollout_ref.model.path")
    if isinstance(model, str) and model and _is_folder_name(model):
        inputs["actor_rollout_ref.model.path"] = model
    with report.collecting():
        check_paths(str(config.run_dir), inputs, (at(config, "ray_kwargs.ray_init") or {}).get("address"))


def check_ray_folder(config: DictConfig, report: Report) -> None:
    """Checks that the folder of the run's own cluster leaves room for Ray's sockets, whose paths Linux bounds."""
    given = at(config, "ray_kwargs.ray_init") or {}
    if joins(given.get("address")):
        return
    key, folder = "ray_kwargs.ray_init._temp_dir", given.get("_temp_dir")
    if not folder:  # as `ray._common.utils.get_ray_temp_dir` chooses
        key = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), "")
        folder = os.environ[key] + "/ray" if key else "/tmp/ray"
    path = str(Path(str(folder)).absolute())
    most = MAX_SOCKET_BYTES - len(_SOCKET.format(pid=os.getpid()))
    if len(os.fsencode(path)) > most:  # the bound is in bytes, and a name may have more of them than characters
        report.add_error(
            f"{key}={folder}: {path} has {len(os.fsencode(path))} bytes, and Ray's sockets in it leave {most}; choose "
            "a shorter folder, such as /tmp/ray"
        )


def find_model(config: DictConfig, report: Report, key: str) -> Path | None:
    """Returns the model's folder on this machine; None where it is not here, an error only for the name of a folder.

    A model of Hugging Face's hub is taken from its cache; the run fetches one that is not there.
    """
    name = at(config, key)
    if not name or not isinstance(name, str):
        report.add_error(f"{key}=null: no value given; choose an option of model=, or add {key}=/path/to/model")
        return None
    folder = Path(name).expanduser()
    if not _is_folder_name(name):
        cached = _cached(name)
        if cached is None:
            report.add_row("model", "files", f"{name} is not on this machine: the run fetches it; not checked")
            return None
        folder = cached
    if not (folder / "config.json").is_file():
        report.add_error(f"{key}={name}: no config.json there; give a Hugging Face model folder")
        return None
    if not any(path for pattern in WEIGHT_FILES for path in folder.glob(pattern)):
        report.add_row("model", "weights", f"none in {folder}")
        if not report.dry:  # a dry run needs sizes alone, which config.json has
            report.add_error(
                f"{key}={name}: no weights ({', '.join(WEIGHT_FILES)}) there; give a Hugging Face model folder"
            )
    return folder


def load_processor(folder: Path, report: Report, key: str) -> Any:
    """Returns the processor of a model's folder, tokenizer included; None, and an error, where it cannot be loaded."""
    from transformers import AutoProcessor

    auto: Any = AutoProcessor
    try:
        processor = auto.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers raises whatever the reading of a file raised
        report.add_error(
            f"{key}={folder}: its processor cannot be loaded ({_first_line(error)}); copy the model's folder whole"
        )
        return None
    if getattr(processor, "image_processor", None) is None or getattr(processor, "tokenizer", None) is None:
        report.add_error(
            f"{key}={folder}: its processor is a {type(processor).__name__}, which takes no images; it must have a "
            "preprocessor_config.json or processor_config.json, and a tokenizer.json"
        )
        return None
    if not getattr(processor, "chat_template", None):
        report.add_error(f"{key}={folder}: has no chat template; copy chat_template.jinja or chat_template.json too")
        return None
    return processor


def data_paths(config: DictConfig, key: str) -> list[Path]:
    """Returns the files at `data.<key>`, one or a list. Raises `UserError` where there is none."""
    files = at(config, f"data.{key}")
    if isinstance(files, str) and files:
        return [Path(files).expanduser()]
    if isinstance(files, list | ListConfig) and files and all(isinstance(item, str) for item in files):
        return [Path(item).expanduser() for item in files]
    raise UserError(f"data.{key}={files}: must be a parquet file or a list of them")


@dataclass(frozen=True)
class OpenRecord:
    """Row of a file at `data.<key>` whose answer may need a judge."""

    key: str
    path: Path
    row: int
    style: str
    data_source: str


@dataclass(frozen=True)
class DataFacts:
    """Facts of the data files.

    Attributes:
        load: the most that the images of one question take; None where no file could be read.
        open_records: first record of each file, style and data source whose answer may need a judge.
    """

    load: ImageLoad | None
    open_records: tuple[OpenRecord, ...]


def check_data(config: DictConfig, report: Report) -> DataFacts:
    """Reads every record. With `skip_bad_records` the good ones are copied to `<run_dir>/data` and used from there."""
    loads, open_records = list[ImageLoad](), list[OpenRecord]()
    for key in ("train_files", "val_files"):
        with report.collecting():
            if key == "train_files" and at(config, "trainer.val_only"):
                continue  # they are those of validation
            paths = data_paths(config, key)
            found = _check_files(config, key)
            for path, checked in zip(paths, found, strict=True):
                open_records += [OpenRecord(key, path, row, *kind) for kind, row in checked.open_records.items()]
            loads += [checked.load for checked in found if checked.load is not None]
            if key == "train_files":
                _check_for_training(paths, found, report)
            records = sum(checked.good for checked in found)
            report.add_row("data", key, f"{records} records")
            batch = at(config, "data.train_batch_size")
            if key == "train_files" and isinstance(batch, int) and records < batch:
                report.add_error(
                    f"data.train_batch_size={batch}: must be at most {records}, the records of data.train_files"
                )
    # largest of each measure over all files: a container must hold the worst question of any
    return DataFacts(functools.reduce(ImageLoad.joined, loads) if loads else None, tuple(open_records))


def _check_for_training(paths: Sequence[Path], found: Sequence[Checked], report: Report) -> None:
    """Checks that no record of training states what is for evaluation alone."""
    for path, checked in zip(paths, found, strict=True):
        if checked.for_evaluation is not None:
            row, reason = checked.for_evaluation
            report.add_error(
                f"data.train_files: {path.name} row {row}: {reason}, which is for evaluation; move such rows to "
                "data.val_files or drop them"
            )


def data_keys(config: DictConfig) -> Keys:
    """Returns the names of columns that the configuration states."""
    prompt = at(config, "data.prompt_key") or at(config, "data.messages_key")
    return Keys(str(prompt or Keys.prompt), str(at(config, "data.image_key") or Keys.images))


def _check_files(config: DictConfig, key: str) -> list[Checked]:
    """Returns the checked files at this key. Raises `UserError` with the key where one is missing or has no record."""
    paths, keys, found = data_paths(config, key), data_keys(config), list[Checked]()
    for path in paths:
        try:
            found.append(
                check_file(path, bool(config.skip_bad_records), Kind.QUESTIONS, keys, progress_line(path.name))
            )
        except UserError as error:
            raise UserError(f"data.{key}: {error}") from error
    for checked in found:
        for note in checked.notes:
            print(f"note: {note}", flush=True)
        for line in checked.lines:
            print(f"skipped: {line}", flush=True)
    if any(checked.bad_rows for checked in found):
        folder = Path(config.run_dir) / "data"
        # all files of the key go to the copies, so that the list has them in its order
        copies = [folder / _copy_name(path, checked.bad_rows) for path, checked in zip(paths, found, strict=True)]
        for path, copy, checked in zip(paths, copies, found, strict=True):
            if not copy.exists():  # a resumed run keeps its copy, and with it its table
                keep_good_rows(path, copy, checked.bad_rows)
        config.data[key] = [str(copy) for copy in copies]
    return found


def _copy_name(path: Path, bad_rows: tuple[int, ...]) -> str:
    """Returns a file name that differs where the copy of the good rows would."""
    stat = path.stat()
    # size and time stand for the content, as reading it again would take as long as the check
    digest = hashlib.sha256(repr((str(path.absolute()), stat.st_size, stat.st_mtime_ns, bad_rows)).encode())
    return f"{path.stem}-{digest.hexdigest()[:12]}.parquet"


def readable(paths: Sequence[Path]) -> list[Path]:
    """Returns the paths that are parquet files; `check_data` reports the others."""
    return [path for path in paths if is_parquet(path)]


def _is_folder_name(name: str) -> bool:
    """Returns True for anything but a name of the hub, which has one slash; an existing folder goes before that."""
    return name.startswith((".", "/", "~")) or name.count("/") != 1 or Path(name).is_dir()


def _cached(name: str) -> Path | None:
    """Returns the folder of a hub's model in the cache of this machine."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json")
    return Path(found).parent if isinstance(found, str) else None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
