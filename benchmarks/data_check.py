"""Speed and memory of `codedance data check`: files of JPEGs of about 60 kB, one as large as the next is small.

`python -m benchmarks.data_check --out FOLDER` makes the files there, runs the command on each as a process of its own,
prints a line for each, and writes `data_check.json`. The files take 60 MB for 1,000 records.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from codedance_verl.data.fields import Message
from codedance_verl.data.schema import RECORD_SCHEMA, Record, write_records

SIZES = (1_000, 10_000, 50_000)
DIFFERENT = 16
"""Images that are really encoded; each record has one of them with a comment of its own in it."""


@dataclass(frozen=True)
class Measured:
    """One file: records, size, peak resident memory of the process in MiB, wall and CPU seconds of the process,
    and records a second as the command tells them, without its start."""

    records: int
    row_group: str
    file_mib: float
    peak_mib: float
    wall_s: float
    cpu_s: float
    per_s: float


def main(arguments: list[str] | None = None) -> None:
    """Makes the files that are not there yet, and measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the files and of data_check.json")
    parser.add_argument("--records", type=int, nargs="+", default=SIZES)
    parser.add_argument("--one-group", action="store_true", help="one row group for the whole file, as pandas writes")
    options = parser.parse_args(arguments)
    measured = []
    for count in options.records:
        file = _made_elsewhere(options.out, count, options.one_group)
        measured.append(measure(file, count, "whole file" if options.one_group else "64 MiB"))
        print(_line(measured[-1]), flush=True)
    (options.out / "data_check.json").write_text(json.dumps([asdict(item) for item in measured], indent=2) + "\n")


def _made_elsewhere(folder: Path, count: int, one_group: bool) -> Path:
    """The file, made by a process of its own: the kernel counts what a parent held among the peak of its child."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as maker:
        return maker.submit(make_file, folder, count, one_group).result()


def make_file(folder: Path, count: int, one_group: bool) -> Path:
    """A file of so many records, made where it is not there yet."""
    path = folder / f"records_{count}{'_one_group' if one_group else ''}.parquet"
    if path.exists():
        return path
    if not one_group:
        write_records(path, _records(count))
        return path
    grouped = make_file(folder, count, one_group=False)
    table = pa.Table.from_batches(pq.ParquetFile(grouped, pre_buffer=False).iter_batches(), RECORD_SCHEMA)
    pq.write_table(table, path, row_group_size=count)
    return path


def measure(path: Path, count: int, row_group: str) -> Measured:
    """Runs the command on the file. Raises RuntimeError where it does not find every record good."""
    command = [sys.executable, "-m", "codedance_verl.cli", "data", "check", str(path)]
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - started
    found = re.search(rf"{count} good records, 0 bad \((\d+) records a second\)", said)
    if found is None:
        raise RuntimeError(f"exit code {process.returncode}: {said}")
    cpu = usage.ru_utime + usage.ru_stime
    size = path.stat().st_size / 2**20
    return Measured(count, row_group, size, usage.ru_maxrss / 1024, wall, cpu, float(found[1]))


def _records(count: int) -> Iterator[Record]:
    images = _jpegs()
    for index in range(count):
        data = images[index % DIFFERENT]
        comment = f"record {index:08d}".encode()
        marked = data[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + data[2:]
        yield Record(
            data_source="benchmark",
            prompt=(Message("user", "<image>How many?"),),
            images=(marked,),
            ability="count",
            ground_truth=str(index % 10),
            extra_info={"split": "train", "index": index, "question": "How many?"},
        )


def _jpegs() -> list[bytes]:
    """Smooth noise of 640 x 480 pixels: about 60 kB each, as photographs of that size are."""
    random, made = np.random.default_rng(0), []
    for _ in range(DIFFERENT):
        coarse = Image.fromarray(random.integers(0, 256, (60, 80, 3), dtype=np.uint8)).resize((640, 480))
        fine = random.integers(-4, 5, (480, 640, 3))
        pixels = np.clip(np.asarray(coarse).astype(np.int64) + fine, 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=70)
        made.append(buffer.getvalue())
    return made


def _line(item: Measured) -> str:
    return (
        f"{item.records:>7} records, {item.file_mib:6.0f} MiB, row groups of {item.row_group}: "
        f"peak {item.peak_mib:4.0f} MiB, {item.per_s:5.0f} records a second "
        f"({item.wall_s:.1f} s, {item.cpu_s:.1f} s of CPU)"
    )


if __name__ == "__main__":
    main()
