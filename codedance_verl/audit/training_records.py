"""Records of training files as the audit reads them, some megabytes at a time, in the order of files and rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from codedance_verl.audit.evaluation_items import encoded_images
from codedance_verl.data.reading import ReadRow, fault_line, open_rows

IMAGE_BYTES = 8 << 20
"""Bytes of encoded images from which on a batch of records ends."""


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


def record_batches(paths: Iterable[Path], with_images: bool = True) -> Iterator[list[TrainingRecord]]:
    """Records of the files in batches whose images, but for the last one's, have less than `IMAGE_BYTES` together.

    Without `with_images` records have none, and image files are not opened. Raises UserError where a file cannot be
    read at all.
    """
    for number, path in enumerate(paths):
        file = open_rows(path)
        for batch in file.batches():  # of rows; what these refer to may be of any size
            held, held_bytes = list[TrainingRecord](), 0
            for read in batch:
                held.append(_record(number, file.path, read, with_images))
                held_bytes += sum(map(len, held[-1].images))
                if held_bytes >= IMAGE_BYTES:
                    yield held
                    held, held_bytes = [], 0
            if held:
                yield held


def _record(file: int, path: Path, read: ReadRow, with_images: bool) -> TrainingRecord:
    where = f"{path.name} row {read.number}"
    if read.row is None:
        return TrainingRecord(file, read.number, where, fault=fault_line(path, read.number, read.fault))
    images, faults = encoded_images(read.row.sources if with_images else (), where)
    row = read.row
    truth = row.ground_truth or None
    return TrainingRecord(file, read.number, where, row.question, truth, row.data_source, images, faults)
