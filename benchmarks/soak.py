"""Leak test of a long run: `python -m benchmarks.soak --demo outputs/demo [--steps 5] [--faults]`.

RL on the tiny model as the demo left it, 256 trajectories with images a step, in real containers. Once a second the
memory, open files and sockets of every kind of process are noted. Printed and written at the end: growth of each over
the steps, what is left afterwards (containers, sockets, temporary files), and, with `--faults`, whether what the run
reports as lost is what was struck (see `faulty_rollouts.py`).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from codedance_verl.evaluation.training import read_metrics
from codedance_verl.sandbox.docker import engine
from codedance_verl.sandbox.docker.reaper import PROJECT_LABEL
from codedance_verl.trajectories.reader import TrajectoryReader

TIMEOUT_S = 3_600.0
PER_STEP = 256
KINDS = {
    "rollout worker": r"ray::CodeDanceAgentLoopWorker|ray::FaultyWorker",
    "sandbox actor": r"ray::SandboxNodeActor",
    "trainer": r"ray::TaskRunner",
    "actor and reference": r"ray::WorkerDict",
    "vLLM": r"ray::vLLM|EngineCore",
    "queue": r"ray::SimpleStorageUnit|ray::TransferQueue",
    "driver": r"codedance_verl\.train",
}


@dataclass(frozen=True)
class Sample:
    """All processes of a kind at one time: trajectories finished so far, MiB, open files, and sockets among them."""

    trajectories: int
    memory_mib: float
    files: int
    sockets: int


@dataclass(frozen=True)
class Growth:
    """Figures of a kind of process: medians in the first and in the last step counted, and the slope in between.

    `slope_mib` is MiB for 1,000 trajectories (least squares over the medians of the steps), `noise_mib` twice its
    standard error.
    """

    first_mib: float
    last_mib: float
    slope_mib: float
    noise_mib: float
    first_files: float
    last_files: float
    first_sockets: float
    last_sockets: float
    mib_by_step: tuple[float, ...]


def kind_of(command: str) -> str | None:
    """Kind of process that a command line starts."""
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, command)), None)


def take_samples(root: psutil.Process, trajectories: int) -> dict[str, Sample]:
    """One sample of every kind among the descendants of a process."""
    found: dict[str, list[tuple[float, int, int]]] = defaultdict(list)
    for process in [root, *root.children(recursive=True)]:
        with contextlib.suppress(psutil.Error, OSError):
            kind = kind_of(" ".join(process.cmdline()))
            if kind is not None:
                links = _open_files(process.pid)
                sockets = sum(link.startswith("socket:") for link in links)
                found[kind].append((process.memory_info().rss / 2**20, len(links), sockets))
    return {kind: Sample(trajectories, *map(sum, zip(*values, strict=True))) for kind, values in found.items()}


def _open_files(pid: int) -> list[str]:
    """Targets of the open file descriptors of a process."""
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since
            found.append(str(entry.readlink()))
    return found


def growth(samples: list[Sample]) -> Growth | None:
    """Computes the figures of one kind; the first step, in which everything is loaded, does not count."""
    steps: dict[int, list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.trajectories >= PER_STEP:
            steps[sample.trajectories // PER_STEP].append(sample)
    if len(steps) < 3:
        return None
    numbers = sorted(steps)
    memory = [statistics.median(sample.memory_mib for sample in steps[number]) for number in numbers]
    slope, error = _slope([number * PER_STEP / 1000 for number in numbers], memory)

    def files(number: int) -> tuple[float, float]:
        chosen = steps[number]
        return statistics.median(item.files for item in chosen), statistics.median(item.sockets for item in chosen)

    (first_files, first_sockets), (last_files, last_sockets) = files(numbers[0]), files(numbers[-1])
    return Growth(
        memory[0], memory[-1], slope, 2 * error, first_files, last_files, first_sockets, last_sockets, tuple(memory)
    )


def _slope(xs: list[float], ys: list[float]) -> tuple[float, float]:
    """Least squares: slope and its standard error."""
    slope, intercept = statistics.linear_regression(xs, ys)
    rest = sum((y - intercept - slope * x) ** 2 for x, y in zip(xs, ys, strict=True)) / (len(xs) - 2)
    middle = statistics.fmean(xs)
    return slope, (rest / sum((x - middle) ** 2 for x in xs)) ** 0.5


def watch(command: list[str], environment: dict[str, str], run_dir: Path, log: Path) -> dict[str, list[Sample]]:
    """Runs a training to its end; returns the samples by kind. Raises `RuntimeError` where it fails or hangs."""
    samples: dict[str, list[Sample]] = defaultdict(list)
    with log.open("w") as output:
        run = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        root, end = psutil.Process(run.pid), time.monotonic() + TIMEOUT_S
        while run.poll() is None and time.monotonic() < end:
            done = sum(len(file.read_bytes().splitlines()) for file in (run_dir / "trajectories").rglob("*.jsonl"))
            with contextlib.suppress(psutil.Error):
                for kind, sample in take_samples(root, done).items():
                    samples[kind].append(sample)
            time.sleep(1)
        if run.poll() is None:
            run.kill()
    if run.returncode != 0:
        raise RuntimeError(f"the training run failed ({run.returncode}); see {log}")
    return samples


def what_is_left(before: set[str]) -> dict[str, list[str]]:
    """Containers of ours, and temporary files that were not there before; Ray's own session logs do not count."""
    client = engine.connect()
    containers = [] if client is None else client.containers.list(all=True, filters={"label": PROJECT_LABEL})
    new = sorted(name for name in _temporary_files() - before if not name.startswith("ray"))
    return {"containers": [str(item.name) for item in containers], "temporary_files": new}


def _temporary_files() -> set[str]:
    return {path.name for path in Path(tempfile.gettempdir()).iterdir()}


def reported(run_dir: Path) -> dict[str, Any]:
    """Counts of trajectories and steps that a run reports."""
    reader = TrajectoryReader(run_dir / "trajectories", "train")
    finishes: Counter[str] = Counter()
    masked = killed = images = 0
    for trajectory in reader:
        finishes[str(trajectory.finish)] += 1
        masked += trajectory.reward.masked
        killed += sum(execution.status == "killed" for execution in trajectory.executions)
        images += len(trajectory.input_images)
    losses = [step.values["actor/pg_loss"] for step in read_metrics(run_dir)]
    return {
        "trajectories": sum(finishes.values()),
        "finishes": dict(finishes),
        "masked": masked,
        "calls_killed": killed,
        "images": images,
        "steps": len(losses),
        "losses": losses,
    }


def soak(demo: Path, output: Path, steps: int, faults: bool) -> dict[str, Any]:
    """One run with all that is told of it; also printed."""
    run_dir = output / "run"
    shutil.rmtree(run_dir, ignore_errors=True)
    output.mkdir(parents=True, exist_ok=True)
    command = [
        *(sys.executable, "-m", "codedance_verl.train", "recipe=cpu_demo", f"run_dir={run_dir}"),
        *(
            f"data.train_files={demo / 'data' / 'rl_train.parquet'}",
            f"data.val_files={demo / 'data' / 'rl_val.parquet'}",
        ),
        *(f"actor_rollout_ref.model.path={demo / 'sft' / 'model'}", "sandbox.backend=docker"),
        f"trainer.total_training_steps={steps}",
    ]
    if faults:
        manager = "benchmarks.faulty_rollouts.FaultyManager"
        command.append(f"actor_rollout_ref.rollout.agent.agent_loop_manager_class={manager}")
    before = _temporary_files()
    path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    samples = watch(command, {**os.environ, "PYTHONPATH": path}, run_dir, output / "log.txt")
    grown = {kind: found for kind, taken in samples.items() if (found := growth(taken)) is not None}
    told = {"reported": reported(run_dir), "left": what_is_left(before), "growth": grown}
    if faults:
        told["struck"] = json.loads((run_dir / "faults.json").read_text())
    print_table(told)
    return {**told, "growth": {kind: asdict(item) for kind, item in grown.items()}}


def print_table(told: dict[str, Any]) -> None:
    print(f"{'process':20} {'MiB':>15} {'MiB per 1,000':>16} {'files':>11} {'sockets':>11}")
    for kind, item in told["growth"].items():
        memory = f"{item.first_mib:.0f} -> {item.last_mib:.0f}"
        slope = f"{item.slope_mib:+.0f} +- {item.noise_mib:.0f}"
        files = f"{item.first_files:.0f} -> {item.last_files:.0f}"
        sockets = f"{item.first_sockets:.0f} -> {item.last_sockets:.0f}"
        print(f"{kind:20} {memory:>15} {slope:>16} {files:>11} {sockets:>11}")
    for name in ("reported", "left", "struck"):
        if name in told:
            print(f"{name}: {told[name]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--demo", type=Path, default=Path("outputs/demo"), help="what `make demo` made")
    parser.add_argument("--steps", type=int, default=5, help=f"RL steps of {PER_STEP} trajectories, at least 4")
    parser.add_argument("--faults", action="store_true", help="have the sandbox fail on purpose")
    parser.add_argument("--output", type=Path, default=Path("outputs/benchmarks/soak"))
    given = parser.parse_args()
    if not (given.demo / "sft" / "model").is_dir():
        parser.exit(2, f"error: no model at {given.demo / 'sft' / 'model'}; run `make demo` first\n")
    found = soak(given.demo.resolve(), given.output.resolve(), given.steps, given.faults)
    (given.output / "results.json").write_text(json.dumps(found, indent=1))
    print(f"written: {given.output}/results.json", file=sys.stderr)


if __name__ == "__main__":
    main()
