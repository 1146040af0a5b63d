"""Records of training files as the audit reads them, some megabytes at a time, in the order of files and rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from codedance_verl.audit.evaluation_items import encoded_images
from codedance_verl.data.reading import ReadRow, fault_line, open_rows


@dataclass(frozen=True)
class TrainingRecord:
    """Record of a training file. Without a ground truth, as a demonstration is, `truth` is None.

    `fault` says why a row is no record, empty for one that is; `faults` has a line for each unreadable image.
    """

    file: int
    row: int
    where: str
    question: str = ""
    truth: str | None = None
    data_source: str = ""
    images: tuple[bytes, ...] = ()
    faults: tuple[str, ...] = ()
    fault: str = ""


def record_batches(paths: Iterable[Path]) -> Iterator[list[TrainingRecord]]:
    """Records of the files in batches. Raises UserError where a file cannot be read at all."""
    for number, path in enumerate(paths):
        file = open_rows(path)
        for batch in file.batches():
            yield [_record(number, file.path, read) for read in batch]


def _record(file: int, path: Path, read: ReadRow) -> TrainingRecord:
    where = f"{path.name} row {read.number}"
    if read.row is None:
        return TrainingRecord(file, read.number, where, fault=fault_line(path, read.number, read.fault))
    images, faults = encoded_images(read.row.sources, where)
    row = read.row
    truth = row.ground_truth or None
    return TrainingRecord(file, read.number, where, row.question, truth, row.data_source, images, faults)
