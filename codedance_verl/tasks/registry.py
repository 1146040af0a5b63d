"""Registry of the benchmarks by name. A new one is a module here with `TASKS`, and an entry in `_MODULES`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from codedance_verl.errors import UserError
from codedance_verl.tasks import (
    chartqa,
    charxiv,
    countbench,
    hrbench,
    mathverse,
    mathvision,
    mathvista,
    pixmocount,
    vstar,
    wemath,
)
from codedance_verl.tasks.task import Task

_MODULES: tuple[tuple[Task, ...], ...] = (
    *(countbench.TASKS, pixmocount.TASKS, vstar.TASKS, hrbench.TASKS, chartqa.TASKS, charxiv.TASKS),
    *(mathvision.TASKS, mathvista.TASKS, mathverse.TASKS, wemath.TASKS),
)

TASKS: Mapping[str, Task] = MappingProxyType({task.name: task for tasks in _MODULES for task in tasks})


def task_of(name: str) -> Task:
    """Benchmark of a name. Raises UserError that lists the names."""
    if name not in TASKS:
        raise UserError(f"there is no benchmark {name}; there are {', '.join(TASKS)}")
    return TASKS[name]
