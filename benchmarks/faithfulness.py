"""Precision, recall and cost of the faithfulness of calls: `python -m benchmarks.faithfulness`.

Synthetic calls whose use of the evidence is known (`benchmarks/faithful_calls.py`) run once in a sandbox, which records
them, and are then judged in another one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.faithful_calls import Sample, samples, samples_apart
from codedance_verl.harness.call_use import CLASSES, Use
from codedance_verl.harness.faithfulness import CallFinding, faithfulness
from codedance_verl.harness.stated_answers import answer_of
from codedance_verl.sandbox.pool import SandboxPool
from codedance_verl.trajectories.schema import ExecutionRecord, ImageRef, TurnRecord
from codedance_verl.types import Execution


@dataclass(frozen=True)
class Judged:
    """Sample with the findings on its calls."""

    sample: Sample
    findings: tuple[CallFinding, ...]

    @property
    def pairs(self) -> list[tuple[Use, Use]]:
        """Known and found use of each call."""
        return list(zip(self.sample.uses, (finding.use for finding in self.findings), strict=True))


async def record(pool: SandboxPool, sample: Sample) -> tuple[TurnRecord, ...]:
    """Turns of a sample as an evaluation keeps them."""
    async with pool.session(sample.scene.png) as session:
        return tuple([_turn(code, await session.run(code), sample.hidden) for code in sample.cells])


def _turn(code: str, execution: Execution, hidden: bool) -> TurnRecord:
    images = tuple(ImageRef(image.sha256, image.width, image.height) for image in execution.images)
    kept = ExecutionRecord(
        execution.status,
        execution.stdout,
        execution.error,
        images,
        execution.duration_s,
        execution.queue_s,
        execution.truncated,
    )
    return TurnRecord("", code, execution.stdout, kept, images_shown=0 if hidden else len(images))


async def judge(pool: SandboxPool, sample: Sample, turns: Sequence[TurnRecord]) -> Judged:
    """Findings on a recorded sample."""
    answer = answer_of(sample.answer, sample.choices, sample.question)
    findings = await faithfulness(pool, [sample.scene.png], turns, answer, [sample.scene.box])
    return Judged(sample, findings)


def agreement(judged: Sequence[Judged]) -> dict[str, Any]:
    """Calls, precision and recall of each class."""
    pairs = Counter(pair for item in judged for pair in item.pairs)
    found: dict[str, Any] = {}
    for use in CLASSES:
        both = pairs[use, use]
        known, claimed = (sum(n for pair, n in pairs.items() if pair[side] is use) for side in (0, 1))
        precision, recall = round(both / max(claimed, 1), 4), round(both / max(known, 1), 4)
        found[use] = {"calls": known, "precision": precision, "recall": recall}
    return found


def wrong(judged: Sequence[Judged]) -> dict[str, int]:
    """Calls that were found to be something else, by kind of sample, known and found use."""
    counts = Counter(
        f"{item.sample.name}: {known} found as {found}"
        for item in judged
        for known, found in item.pairs
        if known is not found
    )
    return dict(counts)


async def measure(calls: int, seed: int, backend: str, most_s: float = float("inf")) -> dict[str, Any]:
    """Figures of that many calls, fewer where `most_s` seconds are over, and of those apart from the classes."""
    config = {"backend": backend, "containers": 1, "standby_containers": 0, "preload": "full"}
    start_cpu, spent = await _cpu_of_a_start(config), Spent()
    async with SandboxPool.local(config) as recording:
        cpu, begun = _cpu_s(), time.monotonic()
        async with SandboxPool.local(config) as pool:
            judged = []
            for sample in samples(calls, seed):
                if time.monotonic() - begun > most_s:
                    break
                with spent.measured():
                    turns = await record(recording, sample)
                judged.append(await judge(pool, sample, turns))
            wall = time.monotonic() - begun
        # The children of `pool` alone have ended by now.
        cpu = _cpu_s() - cpu - start_cpu - spent.cpu_s
        apart = [await judge(recording, sample, await record(recording, sample)) for sample in samples_apart(seed)]
    made = sum(len(item.findings) for item in judged)
    return {
        "calls": made,
        "classes": agreement(judged),
        "wrong": wrong(judged),
        "apart": {"calls": sum(len(item.findings) for item in apart), "wrong": wrong(apart)},
        "cpu_ms_a_call": round(1000 * cpu / max(made, 1), 1),
        "wall_ms_a_call": round(1000 * (wall - spent.wall_s) / max(made, 1), 1),
        "backend": backend,
        "seed": seed,
    }


@dataclass
class Spent:
    """CPU seconds of this process, and wall seconds, in measured blocks."""

    cpu_s: float = 0.0
    wall_s: float = 0.0

    @contextmanager
    def measured(self) -> Iterator[None]:
        cpu, wall = time.process_time(), time.monotonic()
        yield
        self.cpu_s += time.process_time() - cpu
        self.wall_s += time.monotonic() - wall


async def _cpu_of_a_start(config: dict[str, Any]) -> float:
    """CPU seconds of a pool that serves one empty session."""
    before = _cpu_s()
    async with SandboxPool.local(config) as pool, pool.session() as session:
        await session.run("1")
    return _cpu_s() - before


def _cpu_s() -> float:
    """CPU seconds of this process and of those of its children that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(part.ru_utime + part.ru_stime for part in used)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--backend", default="process", help="process, where CPU time of sessions is counted, or docker"
    )
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no further calls after that time")
    parser.add_argument("--output", type=Path, help="file of the figures as JSON")
    options = parser.parse_args()
    figures = asyncio.run(measure(options.calls, options.seed, options.backend, 60 * options.minutes))
    text = json.dumps(figures, indent=2)
    print(text)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
