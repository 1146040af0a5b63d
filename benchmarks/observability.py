"""Cost of metrics and the trajectory log: `python -m benchmarks.observability [--quick]`.

Replays the workload of `benchmarks/rollout.py` (256 trajectories by default) through the real agent loop and the real
sandbox, over and over in one process with a real Ray: without metrics and log, and with both, in turns. What a rollout
worker and a node actor tell is told here for every trajectory as a group of its own, which is more than a run does.
Prints and writes the ratio of the wall times of each pair, of their CPU times, and the seconds spent in telling and
writing themselves, which do not depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.rollout import Engine, Setup, as_we_do, make_workload, running, tiny_processor
from codedance_verl.cluster.connection import keep_to_loopback
from codedance_verl.errors import UserError
from codedance_verl.metrics import emit
from codedance_verl.rollout.telemetry import RolloutStats, record_group
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.pool import SandboxPool
from codedance_verl.sandbox.telemetry import record_call
from codedance_verl.trajectories.writer import TrajectoryLog
from codedance_verl.types import Grade, RewardTerms, Verdict

TRAJECTORIES = 256
_SHARES = ("wall_overhead", "cpu_overhead", "telling_share", "writing_share")


@dataclass(frozen=True)
class Round:
    """Seconds of one replay; at the end of its trajectories `telling_s` went to metrics, `writing_s` to the log."""

    wall_s: float
    cpu_s: float
    telling_s: float = 0.0
    writing_s: float = 0.0


class Observer:
    """Does what a worker and a node actor do for a finished trajectory, and times it."""

    def __init__(self, folder: Path) -> None:
        self._log = TrajectoryLog(folder, "bench")
        self._count = 0
        self.telling_s = self.writing_s = 0.0

    def __call__(self, output: Any) -> None:
        started = time.perf_counter()
        extra = output.extra_fields
        trajectory, timing = extra["trajectory"], extra["timing"]
        grade = Grade(Verdict.CORRECT, "exact")
        terms = RewardTerms(1.0, 1.0, 0.5, 1.0, 1.0, (0.0,) * len(trajectory.turns))
        for execution in trajectory.executions:
            record_call(execution)
        record_group([RolloutStats.of_output(output, grade, terms)], "train", 0.001)
        told = time.perf_counter()
        self._count += 1
        self._log.write(
            trajectory,
            grade,
            terms,
            step=1,
            split="train",
            group=str(self._count),
            sample=0,
            extra_info={},
            input_images=output.multi_modal_data["images"][:1],
            timing=asdict(timing),
        )
        self.telling_s += told - started
        self.writing_s += time.perf_counter() - told


async def replay(setup: Setup, count: int, seed: int, ended: Callable[[Any], None] | None) -> Round:
    """One replay; with `ended`, metrics are on."""
    plans = make_workload(count, seed)
    engine = Engine(setup.processor.tokenizer, setup.rate, setup.rate_each)
    emit.switch(ended is not None)
    async with running(engine):
        wall, cpu = time.monotonic(), time.process_time()
        await as_we_do(setup, plans, engine, *([ended] if ended else []))
        return Round(time.monotonic() - wall, time.process_time() - cpu)


async def compare(setup: Setup, count: int, pairs: int, seed: int) -> dict[str, Any]:
    """All pairs; the first replay, which warms everything up, does not count."""
    with tempfile.TemporaryDirectory() as folder:
        await replay(setup, min(count, 32), seed + 1, Observer(Path(folder)))
    found = []
    for number in range(pairs):
        with tempfile.TemporaryDirectory() as folder:
            observer = Observer(Path(folder))
            both: dict[bool, Round] = {}
            for on in (False, True) if number % 2 == 0 else (True, False):
                both[on] = await replay(setup, count, seed, observer if on else None)
            on_round = Round(both[True].wall_s, both[True].cpu_s, observer.telling_s, observer.writing_s)
        found.append({"off": asdict(both[False]), "on": asdict(on_round)})
        off_s, on_s = both[False].wall_s, on_round.wall_s
        print(
            f"off {off_s:.2f} s, on {on_s:.2f} s ({on_s / off_s - 1:+.2%}); telling {on_round.telling_s / on_s:.3%}, "
            f"writing {on_round.writing_s / on_s:.3%}",
            flush=True,
        )
    return {"trajectories": count, "pairs": found, **_summary(found)}


def _summary(pairs: list[dict[str, Any]]) -> dict[str, float]:
    def median(read: Callable[[dict[str, Any]], float]) -> float:
        return statistics.median(map(read, pairs))

    return {
        "wall_overhead": median(lambda pair: pair["on"]["wall_s"] / pair["off"]["wall_s"] - 1),
        "cpu_overhead": median(lambda pair: pair["on"]["cpu_s"] / pair["off"]["cpu_s"] - 1),
        "telling_share": median(lambda pair: pair["on"]["telling_s"] / pair["on"]["wall_s"]),
        "writing_share": median(lambda pair: pair["on"]["writing_s"] / pair["on"]["wall_s"]),
    }


async def run(given: argparse.Namespace) -> dict[str, Any]:
    config = SandboxConfig(backend=given.backend, containers=4, sessions_per_container=300, queue_length=4096)
    async with SandboxPool.local(config) as pool:
        setup = Setup(tiny_processor(), pool, given.rate, given.rate_each)
        return await compare(setup, 16 if given.quick else given.trajectories, 1 if given.quick else given.pairs, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trajectories", type=int, default=TRAJECTORIES)
    parser.add_argument("--pairs", type=int, default=4, help="replays without and with")
    parser.add_argument("--rate", type=float, default=2500.0, help="tokens a second of the engine")
    parser.add_argument("--rate-each", type=float, default=80.0, help="tokens a second of one trajectory, at most")
    parser.add_argument("--backend", default="docker", help="of the sandbox: docker, process")
    parser.add_argument("--quick", action="store_true", help="one pair of 16 trajectories")
    parser.add_argument("--output", type=Path, default=Path("outputs/benchmarks/observability"))
    given = parser.parse_args()
    os.environ[emit.RUN_VARIABLE] = "benchmark"
    keep_to_loopback({})
    import ray

    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        found = asyncio.run(run(given))
    except UserError as error:
        parser.exit(2, f"error: {error}\n")
    finally:
        ray.shutdown()
    print(", ".join(f"{name} {found[name]:+.3%}" for name in _SHARES))
    given.output.mkdir(parents=True, exist_ok=True)
    (given.output / "results.json").write_text(json.dumps(found, indent=1))
    print(f"written: {given.output}/results.json", file=sys.stderr)


if __name__ == "__main__":
    main()
