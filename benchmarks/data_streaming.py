"""Speed and memory of `codedance data convert`, `check`, `stats`, `split` and `mix` at several sizes.

`python -m benchmarks.data_streaming --out FOLDER` makes files in the layout of CodeDance-RL there, runs each command as
a process of its own, prints a line for each, and writes `data_streaming.json`. A record has a JPEG of about 8 kB, which
it shares with nine others, so that storing each once can be seen. The files take 3 MB for 1,000 records.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
from PIL import Image

from codedance_verl.data.parquet import write_rows

SIZES = (10_000, 100_000)
ENCODED = 16
"""Images that are really encoded; others are one of them with a comment of its own in it."""

SHARED = 10
"""Records to an image."""

_POLL_S = 0.1
_MESSAGE = pa.struct({"role": pa.string(), "content": pa.string()})
_SCHEMA = pa.schema(
    {
        "data_source": pa.string(),
        "messages": pa.list_(_MESSAGE),
        "images": pa.list_(pa.binary()),
        "ability": pa.string(),
        "reward_model": pa.struct({"ground_truth": pa.string(), "style": pa.string()}),
        "extra_info": pa.struct({"index": pa.int64(), "question": pa.string(), "difficulty": pa.string()}),
    }
)


@dataclass(frozen=True)
class Measured:
    """One command on one file.

    Attributes:
        largest_mib: peak resident memory of the largest of its processes.
        together_mib: peak of the proportional memory of all of its processes, polled ten times a second.
        cpu_s: of all of its processes.
        per_core_s: records for a second of CPU.
        made_mib: size of what it made, images included.
    """

    command: str
    records: int
    largest_mib: float
    together_mib: float
    wall_s: float
    cpu_s: float
    per_core_s: float
    made_mib: float


def main(arguments: list[str] | None = None) -> None:
    """Makes the files that are not there yet, and measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the files and of data_streaming.json")
    parser.add_argument("--records", type=int, nargs="+", default=SIZES)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--check-only", action="store_true", help="measure `check` alone, on the published files")
    options = parser.parse_args(arguments)
    measured: list[Measured] = []
    for count in options.records:
        # in another process: the kernel counts what a parent held among the peak of its child
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as maker:
            file = maker.submit(make_file, options.out, count).result()
        for item in [_check(file, count)] if options.check_only else _all(file, count, options.workers):
            measured.append(item)
            print(_line(item), flush=True)
            text = json.dumps([asdict(item) for item in measured], indent=2)
            (options.out / "data_streaming.json").write_text(text + "\n")


def make_file(folder: Path, count: int) -> Path:
    """A file of so many records, made where it is not there yet."""
    path = folder / f"published_{count}.parquet"
    if not path.exists():
        write_rows(path, _rows(count), _SCHEMA)
    return path


def measure(command: str, arguments: Sequence[str], count: int, made: Path | None) -> Measured:
    """Runs a command of `codedance data`. Raises RuntimeError where it fails."""
    started, together = time.perf_counter(), 0
    line = [sys.executable, "-m", "codedance_verl.cli", "data", command, *arguments]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        while (ended := os.wait4(process.pid, os.WNOHANG))[0] == 0:
            together = max(together, _proportional(process.pid))
            time.sleep(_POLL_S)
        _, status, usage = ended
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.stdout is not None
        said = process.stdout.read()
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode}: {said[-2000:]}")
    cpu = usage.ru_utime + usage.ru_stime
    size = sum(path.stat().st_size for path in made.rglob("*") if path.is_file()) / 2**20 if made is not None else 0.0
    wall = time.perf_counter() - started
    return Measured(command, count, usage.ru_maxrss / 1024, together / 2**20, wall, cpu, count / cpu, size)


def _all(file: Path, count: int, workers: int) -> Iterator[Measured]:
    folder, common = file.parent / f"made_{count}", ["--workers", str(workers)]
    records = folder / "converted" / "records.parquet"
    yield _check(file, count)
    yield measure("convert", [str(file), "--out", str(records), *common], count, records.parent)
    yield measure("stats", [str(records), *common], count, None)
    parts = folder / "split"
    yield measure("split", [str(records), "--out", str(parts), "--val", "0.1", *common], count, parts)
    train, val = (str(parts / f"{side}.parquet") for side in ("train", "val"))
    mixed = folder / "mixed" / "mixed.parquet"
    shares = [f"{train}=1", f"{val}=1", "--records", str(count), "--curriculum", "easy,medium,hard"]
    yield measure("mix", [*shares, "--out", str(mixed), *common], count, mixed.parent)


def _check(file: Path, count: int) -> Measured:
    return measure("check", [str(file)], count, None)


def _proportional(pid: int) -> int:
    """Bytes that a process and those below it hold; pages that several share are counted once."""
    total = 0
    try:
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            total += process.memory_full_info().pss
    except (psutil.Error, OSError):
        pass  # one of them has just ended
    return total


def _rows(count: int) -> Iterator[dict[str, object]]:
    encoded = _jpegs()
    for index in range(count):
        data = encoded[index // SHARED % ENCODED]
        comment = f"image {index // SHARED:08d}".encode()
        marked = data[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + data[2:]
        question = f"How many of the {index} things are there?"
        yield {
            "data_source": "benchmark",
            "messages": [{"role": "user", "content": f"<image>\n{question}"}],
            "images": [marked],
            "ability": "count",
            "reward_model": {"ground_truth": str(index % 10), "style": "rule"},
            "extra_info": {"index": index, "question": question, "difficulty": ("easy", "medium", "hard")[index % 3]},
        }


def _jpegs() -> list[bytes]:
    random, made = np.random.default_rng(0), []
    for _ in range(ENCODED):
        coarse = Image.fromarray(random.integers(0, 256, (20, 27, 3), dtype=np.uint8)).resize((224, 168))
        fine = random.integers(-4, 5, (168, 224, 3))
        pixels = np.clip(np.asarray(coarse).astype(np.int64) + fine, 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=75)
        made.append(buffer.getvalue())
    return made


def _line(item: Measured) -> str:
    return (
        f"{item.command:>8} {item.records:>9} records: largest process {item.largest_mib:4.0f} MiB, all together "
        f"{item.together_mib:4.0f} MiB, {item.per_core_s:6.0f} records a second of CPU ({item.wall_s:.1f} s, "
        f"{item.cpu_s:.1f} s of CPU), {item.made_mib:.0f} MiB made"
    )


if __name__ == "__main__":
    main()
