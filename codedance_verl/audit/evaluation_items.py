"""Evaluation questions and images that a training set is compared with: a benchmark, a parquet file, or a folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from codedance_verl.data.fields import BadRow, Source, read_source
from codedance_verl.data.reading import RowFile, fault_line, open_rows
from codedance_verl.errors import UserError
from codedance_verl.tasks.item import Item, UnreadableImage
from codedance_verl.tasks.registry import TASKS

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class Against:
    """Evaluation set by its name and its place."""

    name: str
    path: Path

    @classmethod
    def parse(cls, text: str) -> Against:
        """Reads NAME=PATH. Raises UserError."""
        name, separator, path = text.partition("=")
        if not separator or not name or not path:
            raise UserError(f"--against {text}: must be NAME=PATH, such as chartqa=benchmarks/chartqa")
        return cls(name, Path(path))


@dataclass(frozen=True)
class EvaluationItem:
    """Item of an evaluation set with its encoded images. `faults` has a line for each image that cannot be read."""

    set: str
    id: str
    question: str
    images: tuple[bytes, ...]
    faults: tuple[str, ...] = ()


def evaluation_items(against: Against) -> Iterator[EvaluationItem]:
    """Items of a set, one by one. Whether the set is there is looked at by the call, before any is read.

    A parquet file is one of records (docs/data.md). A folder holds the files of a benchmark where the name is that of
    one (docs/benchmarks.md), else images, which are items without a question.

    Raises UserError: there is no such file or folder, or nothing in it can be read.
    """
    if against.path.is_file():
        return _of_records(against, open_rows(against.path))
    if against.name in TASKS:
        if not against.path.is_dir():
            raise _nothing_there(against)
        return (_of_item(against.name, item) for item in TASKS[against.name].items(against.path))
    return _of_folder(against)


def _of_item(name: str, item: Item) -> EvaluationItem:
    images, faults = list[bytes](), list[str]()
    for reference in item.images:
        try:
            images.append(reference.read())
        except UnreadableImage as fault:
            faults.append(str(fault))
    if item.fault and not faults:  # of what is missing without a reference, such as an empty column
        faults.append(f"{item.id}: {item.fault}")
    return EvaluationItem(name, item.id, item.graded_question or item.question, tuple(images), tuple(faults))


def _of_records(against: Against, file: RowFile) -> Iterator[EvaluationItem]:
    for read in file.read():
        number = str(read.number)
        if read.row is None:
            yield EvaluationItem(against.name, number, "", (), (fault_line(file.path, read.number, read.fault),))
            continue
        images, faults = encoded_images(read.row.sources, f"{file.path.name} row {number}")
        yield EvaluationItem(against.name, number, read.row.question, images, faults)


def _of_folder(against: Against) -> Iterator[EvaluationItem]:
    if not against.path.is_dir():
        raise _nothing_there(against)
    files = sorted(path for path in against.path.rglob("*") if path.suffix.lower() in _SUFFIXES)
    if not files:
        raise UserError(
            f"--against {against.name}={against.path}: holds no images, and {against.name} is no benchmark; "
            f"benchmarks are {', '.join(TASKS)}"
        )
    return (
        EvaluationItem(against.name, str(path.relative_to(against.path)), "", *encoded_images([path], path.name))
        for path in files
    )


def _nothing_there(against: Against) -> UserError:
    return UserError(
        f"--against {against.name}={against.path}: there is no such file or folder; name a parquet file of records, a "
        "folder of a benchmark, or a folder of images"
    )


def encoded_images(sources: Iterable[Source], where: str) -> tuple[tuple[bytes, ...], tuple[str, ...]]:
    """Encoded images that can be read, and a line for each other one."""
    images, faults = list[bytes](), list[str]()
    for index, source in enumerate(sources):
        try:
            images.append(read_source(source, f"images[{index}]"))
        except BadRow as fault:
            faults.append(f"{where}: {fault}")
    return tuple(images), tuple(faults)
