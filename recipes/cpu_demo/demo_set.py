"""The files of the demo: demonstrations for SFT, questions for RL, and a test set with held-out everything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from codedance_verl.data.conditions import CONTROL_OF_VARIANT, Control
from codedance_verl.data.fields import Message
from codedance_verl.data.parquet import write_rows
from codedance_verl.data.schema import SFT_SCHEMA, Record, write_records
from codedance_verl.types import IMAGE_PLACEHOLDER
from recipes.cpu_demo.demo_sizes import DEMO_KINDS as DEMO_KINDS
from recipes.cpu_demo.demo_sizes import DemoSizes as DemoSizes
from recipes.cpu_demo.demonstrations import DEMO_MIXTURE, Mixture, demonstrate
from recipes.cpu_demo.kind_roles import RETURNED_IMAGE
from recipes.cpu_demo.tasks import generate_task
from recipes.cpu_demo.tasks.base import DEFAULT_SIZE, Split, Task, task_rng
from recipes.cpu_demo.trusted_execution import blank_like, render_png

_RL_OFFSET = 1_000_000
"""RL questions start at this task index, so that none of them was demonstrated."""

_REDRAW = 10_000_000
"""Step between the task indices of one test question that is drawn until it has the answer that is wanted."""


@dataclass(frozen=True)
class DemoFiles:
    """Paths of the files, and the number of demonstrations of each style."""

    sft: Path
    rl_train: Path
    rl_val: Path
    test: Path
    styles: Counter[str]


def make_demo_data(
    out_dir: str | Path,
    seed: int = 0,
    sizes: DemoSizes | None = None,
    kinds: Sequence[str] = DEMO_KINDS,
    size: int = DEFAULT_SIZE,
    mixture: Mapping[str, Mixture] = DEMO_MIXTURE,
) -> DemoFiles:
    """Writes `sft.parquet`, `rl_train.parquet`, `rl_val.parquet` and `test.parquet`; the same seed, the same bytes.

    Every test question stands there twice, with variant "sampled" and "greedy", and the first `sizes.blank` a third
    time with variant "blank", the image replaced by a plain grey one of the same size. The first `sizes.controls` also
    stand there with those variants of `CONTROL_OF_VARIANT` that take calls away or force them; that with greyed
    observations has all questions of the kinds that an image which code returns answers.
    """
    sizes = sizes or DemoSizes()
    out = Path(out_dir)
    files = DemoFiles(
        out / "sft.parquet",
        out / "rl_train.parquet",
        out / "rl_val.parquet",
        out / "test.parquet",
        Counter(),
    )
    rows = []
    weights = [mixture.get(kind, Mixture()).weight for kind in kinds]
    for index, task in _tasks(seed, Split.TRAIN, weighted_turns(kinds, weights, sizes.sft), size):
        demonstration = demonstrate(task_rng(seed, Split.TRAIN, "demonstration", index), task, mixture)
        files.styles[demonstration.style] += 1
        rows.append(demonstration.as_row(_record_id(task, "sft", index), task))
    write_rows(files.sft, rows, SFT_SCHEMA)
    train = _tasks(seed, Split.TRAIN, in_turn(kinds, sizes.rl_train), size, offset=_RL_OFFSET)
    write_records(files.rl_train, (make_record(task, "train", index) for index, task in train))
    validation = _tasks(seed, Split.VALIDATION, in_turn(kinds, sizes.rl_val), size)
    write_records(
        files.rl_val,
        (make_record(task, "val", index, "sampled") for index, task in validation),
    )
    write_records(files.test, _test_records(seed, kinds, sizes, size))
    return files


def make_record(
    task: Task,
    split: str,
    index: int,
    variant: str | None = None,
    image: Image.Image | None = None,
    control: Control | None = None,
) -> Record:
    """A task as an RL record. `image` stands in for the task's own image where given; a control is asked greedily."""
    return Record(
        data_source=f"codedance_demo/{task.kind}",
        prompt=(Message("user", IMAGE_PLACEHOLDER + task.question),),
        images=(render_png(image or task.image).png,),
        ability=task.kind,
        ground_truth=task.answer,
        extra_info={
            "split": split,
            "index": index,
            "record_id": _record_id(task, split, index),
            "question": task.question,
            "answer": task.answer,
            "need_tools_kwargs": False,
            "kind": task.kind,
            "difficulty": task.difficulty,
            "variant": variant,
            "control": control,
            "temperature": None if control is None else 0.0,
        },
    )


def _record_id(task: Task, split: str, index: int) -> str:
    return f"{task.kind}-{split}-{index:06d}"


def in_turn(kinds: Sequence[str], count: int) -> list[str]:
    """`count` kinds, one after the other and again from the first."""
    return [kinds[index % len(kinds)] for index in range(count)]


def weighted_turns(kinds: Sequence[str], weights: Sequence[float], count: int) -> list[str]:
    """`count` kinds, each as often as its weight asks for at any point of the list."""
    owed, found = [0.0] * len(kinds), []
    for _ in range(count):
        owed = [debt + weight / sum(weights) for debt, weight in zip(owed, weights, strict=True)]
        chosen = max(range(len(kinds)), key=owed.__getitem__)
        owed[chosen] -= 1.0
        found.append(kinds[chosen])
    return found


def _tasks(seed: int, split: Split, kinds: Sequence[str], size: int, offset: int = 0) -> Iterator[tuple[int, Task]]:
    """A task of each of these kinds, with its running number."""
    for index, kind in enumerate(kinds):
        yield index, generate_task(kind, seed, split, offset + index, size)


def _test_tasks(seed: int, kinds: Sequence[str], count: int, size: int) -> Iterator[tuple[int, Task]]:
    """Test tasks with their running numbers; answers that only a returned image shows come equally often.

    A guess that is always the same is then right as often as any other, so that chance is one over their number.
    """
    asked = Counter[str]()
    for index, task in _tasks(seed, Split.TEST, in_turn(kinds, count), size):
        if task.kind in RETURNED_IMAGE:
            wanted, draw = task.guesses[asked[task.kind] % len(task.guesses)], index
            asked[task.kind] += 1
            while task.answer != wanted:
                draw += _REDRAW
                task = generate_task(task.kind, seed, Split.TEST, draw, size)
        yield index, task


def _test_records(seed: int, kinds: Sequence[str], sizes: DemoSizes, size: int) -> Iterator[Record]:
    for index, task in _test_tasks(seed, kinds, sizes.test, size):
        yield make_record(task, "test", index, "sampled")
        yield make_record(task, "test", index, "greedy")
        if index < sizes.blank:
            yield make_record(task, "test", index, "blank", blank_like(task.image))
        for variant, control in CONTROL_OF_VARIANT.items():
            if _is_controlled(task.kind, index, control, sizes):
                yield make_record(task, "test", index, variant, control=control)


def _is_controlled(kind: str, index: int, control: Control, sizes: DemoSizes) -> bool:
    """Returns whether a test question is asked under an intervention too."""
    if control is Control.GREY_OBSERVATIONS:  # all of them: chance and accuracy are told apart by few points
        return kind in RETURNED_IMAGE and sizes.controls > 0
    return index < sizes.controls
