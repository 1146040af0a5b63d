"""Files and folders that appear whole or not at all, also after a power cut."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

_WITHOUT_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP)


def write_atomically(path: Path, data: str | bytes) -> None:
    """Writes a file; text as UTF-8. Raises OSError, and then the old file is as it was."""
    with replacing(path) as partial:
        partial.write_bytes(data.encode() if isinstance(data, str) else data)


@contextlib.contextmanager
def replacing(path: Path, writer: str = "", durable: bool = True) -> Iterator[Path]:
    """Yields where to make a new file or folder, which takes the place of `path` at the end of the block.

    Args:
        path: a file or a folder, which may exist.
        writer: name of this writer, where several may make the same path at the same time.
        durable: False leaves out the flush to disk, for files that a crash of the machine may cost.

    Raises:
        OSError: it cannot be put there. After an error nothing is left of the new one, and the old one is as it was.
    """
    partial = path.with_name(f"{path.name}.{writer}.partial" if writer else f"{path.name}.partial")
    if partial.is_dir():  # of a process that was killed; a file is overwritten
        shutil.rmtree(partial)
    try:
        yield partial
        put_in_place(partial, path, durable)
    except BaseException:
        with contextlib.suppress(OSError):
            _remove(partial)
        raise


def put_in_place(partial: Path, path: Path, durable: bool = True) -> None:
    """Gives a finished file or folder its name, in place of what has it."""
    if durable:  # before the rename: else the name could reach the disk before the bytes it stands for
        for item in [*partial.rglob("*"), partial] if partial.is_dir() else [partial]:
            flush(item)
    if path.is_dir():  # a rename replaces empty folders only
        shutil.rmtree(path)
    partial.replace(path)
    if durable:
        flush(path.parent)


def flush(path: Path) -> None:
    """Waits until a file's bytes, or a folder's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _WITHOUT_FOLDER_SYNC or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
