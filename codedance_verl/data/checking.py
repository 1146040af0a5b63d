"""Checks of whole files: every row, every image, in bounded memory, by as many threads as there are cores."""

from __future__ import annotations

import io
import itertools
import math
import os
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
from PIL import Image, UnidentifiedImageError

from codedance_verl import images
from codedance_verl.data.conditions import only_for_evaluation
from codedance_verl.data.fields import BadRow, Source, read_source
from codedance_verl.data.names import RecordNames
from codedance_verl.data.parquet import GroupWriter, batches, open_parquet
from codedance_verl.data.reading import Origin, ReadRow, fault_line, open_rows, refusal
from codedance_verl.data.rows import DEFAULT_KEYS, CanonicalRow, Keys, Kind
from codedance_verl.errors import UserError
from codedance_verl.grading.matchers import is_open
from codedance_verl.grading.rules.alternatives import alternatives_of
from codedance_verl.sandbox.docker.sizing import ImageLoad
from codedance_verl.sandbox.interpreter import MAX_INPUT_BYTES

_MOST_THREADS = 8
# A JPEG is decoded at an eighth of its size: a third of the time, and a truncated one still fails.
_SHRINK = 8

# Pixels of the shorter side from which a JPEG is.
_SHRUNK_FROM = 64

_PROGRESS_EVERY_S = 1.0


@dataclass(frozen=True)
class Checked:
    """Findings on a file: number of good rows, numbers of the bad ones with a line each, and notes on the file.

    `load` is what the images of one good row take at most; None without images. `open_records` has, by style and data
    source, the number of the first good row whose answer may need a judge (`matchers.is_open`). `for_evaluation` has
    the number of the first good row that no training may have, and why; None without one.
    """

    good: int
    bad_rows: tuple[int, ...] = ()
    lines: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    load: ImageLoad | None = None
    open_records: Mapping[tuple[str, str], int] = field(default_factory=dict)
    for_evaluation: tuple[int, str] | None = None


def check_file(
    path: str | Path,
    skip_bad_records: bool = False,
    needs: Kind | None = None,
    keys: Keys = DEFAULT_KEYS,
    progress: Callable[[int, int], None] | None = None,
) -> Checked:
    """Checks every row of a file of questions or of demonstrations, images included.

    Args:
        path: a parquet file.
        skip_bad_records: whether bad rows are left out rather than an error.
        needs: what it must hold; None where both will do.
        keys: names of its columns.
        progress: called with rows done and rows in all, row by row.

    Raises:
        UserError: there is no such file, it holds the other kind, a row is bad (the first is named) unless
            `skip_bad_records`, or no row is good.
    """
    file = open_rows(path, needs, keys)
    names, bad_rows, lines, done, most = RecordNames(), list[int](), list[str](), 0, None
    open_records = dict[tuple[str, str], int]()
    for_evaluation: tuple[int, str] | None = None
    for read, fault, load in _with_images(file.batches()):
        done += 1
        if progress is not None:
            progress(done, file.rows)
        if fault:
            lines.append(fault_line(file.path, read.number, fault))
            bad_rows.append(read.number)
            if not skip_bad_records:
                raise refusal(lines[-1], file.columns.kind)
            continue
        most = load if most is None or load is None else most.joined(load)
        if read.row is not None and file.columns.kind is Kind.QUESTIONS:
            names.name(read.row.data_source, read.row.extra_info, file.origin.path, read.number)
            kind = (read.row.style, read.row.data_source)
            if kind not in open_records and _is_open(read.row):
                open_records[kind] = read.number
            if for_evaluation is None and (reason := only_for_evaluation(read.row.extra_info)):
                for_evaluation = (read.number, reason)
    if done == len(bad_rows):
        raise UserError(f"{path} holds no usable record; make or download it again")
    notes = tuple(_repetitions(names, file.origin.path))
    return Checked(done - len(bad_rows), tuple(bad_rows), tuple(lines), notes, most, open_records, for_evaluation)


def keep_good_rows(path: str | Path, target: str | Path, bad_rows: Collection[int]) -> None:
    """Copies a file without the rows of these numbers. `open_rows` names its rows, and finds its images, as in `path`.

    Raises UserError where the disk does not take it.
    """
    path = Path(path)
    parquet = open_parquet(path)
    origin = Origin.of(path.absolute(), parquet.schema_arrow)
    numbers = origin.numbers()
    note = Origin(origin.path, origin.left_out | frozenset(bad_rows))
    with GroupWriter(Path(target), note.noted_in(parquet.schema_arrow)) as writer:
        for batch in batches(path, parquet):
            kept = [index for index in range(batch.num_rows) if next(numbers) not in note.left_out]
            writer.add(pa.Table.from_batches([batch]).take(pa.array(kept, pa.int64())))


def progress_line(name: str) -> Callable[[int, int], None] | None:
    """Printer of progress in one line of a terminal that is overwritten; None where there is no terminal."""
    if not sys.stderr.isatty():
        return None
    started = last = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _PROGRESS_EVERY_S or done == total:
            last = now
            rate = done / max(now - started, 1e-9)
            end = "\n" if done == total else ""
            print(f"\r{name}: {done} of {total} records, {rate:.0f} a second", end=end, file=sys.stderr, flush=True)

    return show


def inspect_image(source: Source, where: str) -> tuple[tuple[int, int], int]:
    """Width and height of an image as code gets it, and bytes of its file. Raises BadRow where it cannot be read."""
    try:
        data = read_source(source, where)
        return _decode(data), len(data)
    except BadRow:
        raise
    except Exception as error:  # decoders of damaged files raise anything
        reason = "unknown or damaged format" if isinstance(error, UnidentifiedImageError) else str(error)
        raise BadRow(f"{where} is not a readable image ({reason})") from None


def fault_of_images(row: CanonicalRow[Source]) -> str:
    """Fault of a row's images: one that cannot be read, or more bytes than the sandbox takes; empty without one."""
    return _row_images(ReadRow(0, row))[0]


def _decode(data: bytes) -> tuple[int, int]:
    """Decodes an image, at least in part; returns width and height as code gets it."""
    size = images.shown_size(data)
    with Image.open(io.BytesIO(data)) as image:
        if image.format == "JPEG" and image.mode in ("L", "RGB") and min(image.size) >= _SHRUNK_FROM:
            # only JPEG decodes at a fraction of its size; CMYK and small ones are decoded whole
            image.draft(image.mode, (image.width // _SHRINK, image.height // _SHRINK))
            image.load()
            return size
    images.decode(data)
    return size


# Fault of the images of a row, empty without one, and what they take.
_RowImages = tuple[str, ImageLoad | None]


def _with_images(read: Iterable[list[ReadRow]]) -> Iterator[tuple[ReadRow, str, ImageLoad | None]]:
    """Rows in order, each with its fault; the images of a batch are decoded while the one before is reported."""
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        waiting: list[tuple[ReadRow, Future[_RowImages]]] = []
        try:
            for batch in itertools.chain(read, [[]]):  # the empty one brings out the last
                submitted = [(row, pool.submit(_row_images, row)) for row in batch]
                yield from ((row, *checked.result()) for row, checked in waiting)
                waiting = submitted
        finally:
            pool.shutdown(cancel_futures=True)


def _row_images(read: ReadRow) -> _RowImages:
    if read.row is None:
        return read.fault, None
    try:
        found = [inspect_image(source, f"images[{index}]") for index, source in enumerate(read.row.sources)]
    except BadRow as fault:
        return str(fault), None
    return _size_fault(read.row), _load(found, read.number)


def _load(found: Sequence[tuple[tuple[int, int], int]], row: int) -> ImageLoad | None:
    """What images take together, by the size and the bytes of each."""
    if not found:
        return None
    sizes, encoded_bytes = zip(*found, strict=True)
    pixels = [math.prod(size) for size in sizes]
    return ImageLoad(sum(pixels), pixels[0], sum(encoded_bytes), max(sizes, key=math.prod), row)


def _size_fault(row: CanonicalRow[Source]) -> str:
    """True if the image files of a question are more than an interpreter takes at once."""
    size = sum(len(item) if isinstance(item, bytes) else item.stat().st_size for item in row.sources)
    if not row.data_source or size <= MAX_INPUT_BYTES:
        return ""
    return f"its images have {size >> 20} MiB, and the sandbox takes {MAX_INPUT_BYTES >> 20} MiB; store them smaller"


def _is_open(row: CanonicalRow[Source]) -> bool:
    return any(is_open(truth, row.style, row.question) for truth in alternatives_of(row.ground_truth))


def _repetitions(names: RecordNames, path: Path) -> Iterator[str]:
    if names.repetitions:
        examples = ", ".join(f"row {row}: {name}" for row, name in names.repeated)
        yield (
            f"{path.name}: {names.repetitions} records repeat the extra_info.index of one before, of the same "
            f"data_source ({examples}); logs name them with @{path.stem}:ROW behind it"
        )
