"""Files of benchmarks: the folder of each one below the folder that is given, or a dataset of the hub."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

from codedance_verl.errors import UserError
from codedance_verl.tasks.hub import folder_of
from codedance_verl.tasks.item import Item
from codedance_verl.tasks.registry import TASKS
from codedance_verl.tasks.task import Task


def source_of(task: Task, data: str) -> Path:
    """Folder that holds the files of a benchmark.

    Tried in order: `data/<name>`, `data/<name of another benchmark of the same dataset>`, `data` itself, and, where
    there is no such folder, the dataset of that name on the hub.

    Raises UserError: none of them has its files; names what was looked for.
    """
    root = Path(data).expanduser()
    if not root.is_dir():
        return folder_of(task, data)
    names = [task.name, *(other.name for other in TASKS.values() if other.source == task.source)]
    for name in dict.fromkeys(names):
        if (root / name).is_dir():
            task.found_in(root / name)  # its message names the layouts
            return root / name
    try:
        task.found_in(root)
    except UserError as error:
        raise UserError(f"{error}; nor is there a folder {root / task.name}") from None
    return root


def items_of(task: Task, folder: Path, limit: int | None = None) -> Callable[[], Iterator[Item]]:
    """Maker of iterators over the items of a benchmark, the first `limit` of them where it is given."""
    return lambda: itertools.islice(task.items(folder), limit)
