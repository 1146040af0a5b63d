"""Benchmarks of an evaluation with their files: what is asked, and whose replies are scored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from codedance_verl.errors import UserError
from codedance_verl.harness.settings import EvalSettings
from codedance_verl.harness.sources import items_of, source_of
from codedance_verl.tasks.item import Item
from codedance_verl.tasks.own_records import is_own, own_task
from codedance_verl.tasks.registry import TASKS, task_of
from codedance_verl.tasks.task import Task

TABLES = "tables"
"""Folder, in that of the run, for the rows of files of one's own."""

RESERVED = (TABLES, "faithfulness", "images", "judge", "scores", "vlmevalkit")
"""Folders of a run that are no records."""


@dataclass(frozen=True)
class Listed:
    """Benchmark whose files are there.

    Attributes:
        task: the benchmark.
        replies: the one whose replies are scored; mostly the same.
        items: makes an iterator over the items that are asked.
        count: number of these items.
    """

    task: Task
    replies: Task
    items: Callable[[], Iterator[Item]]
    count: int

    def folder(self, out: Path) -> Path:
        """Folder of the replies' records."""
        return out / self.replies.name


def listed(settings: EvalSettings, tell: Callable[[str], None]) -> tuple[Listed, ...]:
    """Benchmarks of the settings, their items counted; says where there are others than the revision has.

    Raises UserError: files of one are not there.
    """
    limit, found = settings.evaluation.limit, []
    for name in settings.evaluation.benchmarks:
        own = is_own(name)
        task = own_task(Path(name), settings.out / TABLES) if own else task_of(name)
        folder = Path(name).parent if own else source_of(task, settings.evaluation.data)
        items = items_of(task, folder, limit)
        count = sum(1 for _ in items())
        # a limit that is reached hides how many items there are
        whole = limit is None or count < limit
        if whole and (note := task.count_note(count)):
            tell(note)
        found.append(Listed(task, task_of(task.replies_of) if task.replies_of else task, items, count))
    _check_names(found)
    return tuple(found)


def _check_names(benchmarks: Sequence[Listed]) -> None:
    """Raises UserError for a file whose name is that of another one, of a benchmark, or of a folder of the run."""
    seen: dict[str, str] = {}
    for benchmark in benchmarks:
        task = benchmark.task
        own = task.name not in TASKS or TASKS[task.name] is not task
        taken = seen.get(task.name, "a benchmark" if own and task.name in TASKS else "")
        if own and task.name in RESERVED:
            taken = "a folder of the run"
        # a benchmark that is named twice is no clash, a file that is named twice is one
        if taken and (own or taken != task.source):
            raise UserError(f"{task.source}: its name is that of {taken}; rename the file")
        seen[task.name] = task.source
