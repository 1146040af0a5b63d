"""The folder of a run, laid out alike by training, SFT and evaluation (see docs/architecture.md)."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from codedance_verl.errors import UserError
from codedance_verl.runtime.checkpoints import TRACKER, folder_of

MODEL = "model"
"""Name of the folder of the trained model, below that of the run."""
LOCK = ".lock"

_WITHOUT_LOCKS = (errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS)
_logger = logging.getLogger(__name__)


@contextlib.contextmanager
def alone(folder: Path, otherwise: str) -> Iterator[None]:
    """Keep others out of the folder inside the block. A file system without locks lets them in, which is logged.

    The lock ends with this process, however that ends.

    Raises:
        UserError: `otherwise`, where somebody is in.
    """
    with (folder / LOCK).open("w") as file:
        os.register_at_fork(after_in_child=file.close)  # a child that outlives this process must not keep the lock
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(otherwise) from None
        except OSError as error:
            if error.errno not in _WITHOUT_LOCKS:
                raise
            _logger.warning("%s: no locks there (%s); a second start would not be noticed", folder, error.strerror)
        yield


def run_lock(run_dir: Path) -> contextlib.AbstractContextManager[None]:
    """Keep other runs out of the run's folder inside the block. Raises UserError where there is one."""
    return alone(
        run_dir, f"run_dir={run_dir}: another run goes on there; wait for its end, or end it, or choose another folder"
    )


def new_metrics_file(run_dir: Path) -> Path:
    """A metrics file of its own for each start of a run: verl's file logger truncates what it finds."""
    folder = run_dir / "metrics"
    folder.mkdir(parents=True, exist_ok=True)
    taken = [int(path.stem) for path in folder.glob("*.jsonl") if path.stem.isdecimal()]
    return folder / f"{max(taken, default=-1) + 1:04d}.jsonl"


def last_step(run_dir: Path) -> int:
    """Step of the last complete checkpoint, 0 where there is none; verl empties the file that names it to write it."""
    try:
        return int((run_dir / "checkpoints" / TRACKER).read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return 0


def publish_model(run_dir: Path, part: str = "") -> Path:
    """Copy the Hugging Face folder of the last checkpoint to `<run_dir>/model`, which never holds half of one.

    `part` is the worker group's folder inside a checkpoint, "actor" after RL.

    Raises:
        UserError: it cannot be copied, for want of space, say; the checkpoint stays as it is.
    """
    source = folder_of(run_dir / "checkpoints", last_step(run_dir)) / part / "huggingface"
    target, partial = run_dir / MODEL, run_dir / f"{MODEL}.partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(source, partial)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise UserError(
            f"{target}: cannot be made of {source} ({_cause(error)}); free some space and start the run again"
        ) from error
    return target


def _cause(error: OSError) -> str:
    """In a line, also where `shutil` tells of every file that could not be copied."""
    return str(error.args[0][0][-1]) if isinstance(error, shutil.Error) else error.strerror or str(error)
