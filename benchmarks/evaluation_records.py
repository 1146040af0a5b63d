"""Time and memory of planning, writing, listing and resuming an evaluation's records.

`python -m benchmarks.evaluation_records [--items N] [--reply-kib N] [--folder FOLDER] [--output FILE]`. Each phase is a
process of its own, whose peak memory is given less that of one that only imports the same modules. Items are made as
they are asked for; 16,042 is the number of items of the eleven benchmarks together. `write`
records half of them and is then killed with SIGKILL; `resume` does the rest.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from codedance_verl.records.key import replies_key
from codedance_verl.records.record import Status
from codedance_verl.records.store import Store, open_store

ITEMS = 16_042
_TIMEOUT_S = 1800


@dataclass(frozen=True)
class Question:
    """Synthetic item."""

    id: str
    sha256: str


def questions(count: int) -> Iterator[Question]:
    """Items, made one by one."""
    return (Question(f"benchmark/test/{number}", f"{number:064x}") for number in range(count))


def store_in(folder: Path) -> Store:
    """Store of the benchmark's one key."""
    return open_store(
        folder, replies_key(task="synthetic", revision="1", model="none", prompt="", sampling={}, limits={})
    )


def _write(folder: Path, count: int, reply: str, until: int) -> int:
    """Records items until there are so many samples, then kills this process, if there are items left."""
    with store_in(folder).writer() as writer:
        recorded = 0
        for work in writer.work(lambda: questions(count)):
            writer.add(work, Status.ANSWERED, {"reply": reply})
            recorded += 1
            if recorded == until < count:
                os.kill(os.getpid(), signal.SIGKILL)
    return recorded


def _listed(folder: Path) -> int:
    return len({record.item for record in store_in(folder).records()})


PHASES: Mapping[str, Callable[[Path, int, str], int]] = {
    "import": lambda folder, count, reply: 0,
    "plan": lambda folder, count, reply: store_in(folder).plan(questions(count)).left,
    "write": lambda folder, count, reply: _write(folder, count, reply, count // 2),
    "plan_half": lambda folder, count, reply: store_in(folder).plan(questions(count)).left,
    "resume": lambda folder, count, reply: _write(folder, count, reply, count),
    "plan_done": lambda folder, count, reply: store_in(folder).plan(questions(count)).left,
    "list": lambda folder, count, reply: _listed(folder),
}
"""Work of each phase, in order; returns a number that is checked."""


def run_phase(name: str, folder: Path, count: int, reply_kib: int) -> None:
    """Runs a phase in this process and prints its result, seconds, CPU seconds and peak MiB."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = PHASES[name](folder, count, "x" * (reply_kib << 10))
    status = Path("/proc/self/status").read_text()
    # not ru_maxrss, which begins with that of the process this one was forked from
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    found = {"result": result, "wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    print(json.dumps(found | {"peak_mib": peak / 1024}))


def measure(folder: Path, count: int, reply_kib: int) -> dict[str, dict[str, float]]:
    """Figures of each phase: result, wall and CPU seconds, MiB above the imports; of `write`, which is killed, none.

    Raises RuntimeError: a phase failed, or did not find what the one before had left.
    """
    found: dict[str, dict[str, float]] = {}
    for name in PHASES:
        command = [sys.executable, "-m", "benchmarks.evaluation_records", "--phase", name, "--folder", str(folder)]
        command += ["--items", str(count), "--reply-kib", str(reply_kib)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S)
        if done.returncode != (-signal.SIGKILL if name == "write" else 0):
            raise RuntimeError(f"{name}: ended with {done.returncode}\n{done.stderr}")
        if name != "write":
            found[name] = json.loads(done.stdout)
    base = found.pop("import")["peak_mib"]
    left = count - count // 2
    wanted = {"plan": count, "plan_half": left, "resume": left, "plan_done": 0, "list": count}
    if (results := {name: row["result"] for name, row in found.items()}) != wanted:
        raise RuntimeError(f"found {results}, not {wanted}")
    return {
        name: {key: round(max(value - base * (key == "peak_mib"), 0.0), 2) for key, value in row.items()}
        for name, row in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=ITEMS)
    parser.add_argument("--reply-kib", type=int, default=8, help="KiB of a reply")
    parser.add_argument("--folder", type=Path, help="where the records go; a temporary folder if left out")
    parser.add_argument("--phase", choices=list(PHASES), help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=Path("outputs/bench/evaluation_records.json"))
    arguments = parser.parse_args()
    if arguments.phase:
        run_phase(arguments.phase, arguments.folder, arguments.items, arguments.reply_kib)
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        phases = measure(Path(folder), arguments.items, arguments.reply_kib)
        size = sum(path.stat().st_size for path in Path(folder).glob("*.jsonl")) / 2**20
    for name, row in phases.items():
        print(f"{name:10} {row['wall_s']:8.2f} s {row['cpu_s']:8.2f} CPU s {row['peak_mib']:8.1f} MiB")
    found = {"items": arguments.items, "records_mib": round(size, 1), "phases": phases}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{size:,.0f} MiB of records; {arguments.output}")


if __name__ == "__main__":
    main()
