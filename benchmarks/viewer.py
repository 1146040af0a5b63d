"""Cost of `codedance view` over many trajectories: `python -m benchmarks.viewer`, about two minutes on two cores.

Writes a made-up run of 100,000 trajectories as training would, reports what writing one costs, serves it by the command
itself with no index, and times the first page, the whole index, then pages and filters. Every figure is the caller's:
request sent to last byte read, the median and the slowest of `REPEATS`. Memory is the server's, its peak (`VmHWM`).
Prints a table and writes JSON (`--output`).
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.sample_run import write_group
from codedance_verl.trajectories.writer import TrajectoryLog

REPEATS = 10
GROUP = 8
GROUPS_A_STEP = 128
LIMIT_SECONDS = 600

PAGES = {
    "list of runs": "",
    "steps of a run": "runs/1",
    "list, first page": "runs/1/list",
    "list, page 500": "runs/1/list?page=500",
    "filter: wrong, used code": "runs/1/list?outcome=wrong&tools=used",
    "filter: score range, turns": "runs/1/list?min_score=0.2&max_score=0.9&min_turns=2",
    "filter: status error": "runs/1/list?status=error",
    "filter: one step": "runs/1/list?step=40",
    "search: text": "runs/1/list?text=orange",
    "search: nothing found": "runs/1/list?text=nothing+like+it",
    "a trajectory": "t/50000",
    "its group": "t/50000/group",
}


def write(folder: Path, count: int) -> float:
    """Writes `count` trajectories, images in one group of 64; seconds for one."""
    log = TrajectoryLog(folder / "trajectories", "bench")
    started = time.perf_counter()
    for number in range(count // GROUP):
        split = "val" if number % GROUPS_A_STEP == 0 else "train"
        step = number // GROUPS_A_STEP + 1
        skill = min(1.0, number * GROUP / count)
        write_group(log, number % 5000, step=step, split=split, size=GROUP, skill=skill, pictures=number % 64 == 0)
    return (time.perf_counter() - started) / count


def store_cost(folder: Path, groups: int = 32) -> float:
    """CPU seconds that `TrajectoryLog.write` alone takes for one of 256 trajectories with their images."""
    log = TrajectoryLog(folder / "trajectories", "cost", max_bytes=100 << 30)
    spent, count = 0.0, 0
    whole = log.write

    def timed(*args: Any, **kwargs: Any) -> None:
        nonlocal spent, count
        started = time.thread_time()
        whole(*args, **kwargs)
        spent += time.thread_time() - started
        count += 1

    log.write = timed  # type: ignore[method-assign]
    for number in range(groups):
        write_group(log, number, step=1, split="train", size=GROUP, skill=0.7)
    return spent / count


def seconds(ask: Callable[[], object], repeats: int = REPEATS) -> tuple[float, float]:
    """Median and slowest."""
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        ask()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken), max(taken)


def fetch(url: str) -> str:
    """The page, whole."""
    with urllib.request.urlopen(url, timeout=LIMIT_SECONDS) as answer:
        return str(answer.read().decode())


def peak_mib(process: int) -> float:
    """Most memory the process has held, in MiB."""
    found = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    return int(found[0]) / 1024


def serve(root: Path, cache: Path, count: int) -> dict[str, Any]:
    """Starts the command without an index, times what a person sees, then every page once the index is whole."""
    command = [sys.executable, "-m", "codedance_verl.cli", "view", str(root), "--port", "0", "--cache", str(cache)]
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            base = re.findall(r"open (http://\S+)", process.stdout.readline())[0]
            up = time.perf_counter() - started
            first, _ = seconds(lambda: fetch(base + "runs/1/list"), 1)
            while f"{count:,}</span> trajectories" not in fetch(base + "runs/1/list"):
                if time.perf_counter() - started > LIMIT_SECONDS:
                    raise TimeoutError("the index is not made in time")
                time.sleep(0.5)
            whole = time.perf_counter() - started
            pages = {name: seconds(lambda url=base + path: fetch(url)) for name, path in PAGES.items()}  # type: ignore[misc]
            memory = peak_mib(process.pid)
        finally:
            process.terminate()
            process.wait(30)
    return {"start_s": up, "first_page_without_index_s": first, "index_s": whole, "pages": pages, "peak_mib": memory}


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000, help="trajectories")
    parser.add_argument("--output", type=Path, default=None, help="JSON file of the figures")
    given = parser.parse_args()
    count = given.count // GROUP * GROUP
    with tempfile.TemporaryDirectory() as folder:
        cost = store_cost(Path(folder) / "cost")
        run = Path(folder) / "run"
        made = write(run, count)
        size = sum(path.stat().st_size for path in run.rglob("*.jsonl"))
        figures: dict[str, Any] = {
            "trajectories": count,
            "jsonl_mib": size / 2**20,
            "write_cpu_s": cost,
            "make_and_write_s": made,
        }
        figures |= serve(run, Path(folder) / "cache", count)
    print(f"{count:,} trajectories, {size / 2**20:.0f} MiB of lines; writing one takes {cost * 1e3:.2f} ms of CPU")
    first = figures["first_page_without_index_s"]
    print(f"server up: {figures['start_s']:.2f} s; first page: {first:.3f} s, no index yet")
    print(f"index whole: {figures['index_s']:.1f} s after the start; peak memory {figures['peak_mib']:.0f} MiB")
    for name, (median, slowest) in figures["pages"].items():
        print(f"{name:28} {median:7.3f} s  slowest {slowest:.3f} s")
    if given.output is not None:
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
