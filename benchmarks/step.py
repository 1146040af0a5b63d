"""Overhead over plain verl: `python -m benchmarks.step [--quick]`.

The same trajectories, turn by turn the same tokens and images, go through verl's own rollout worker and tool agent loop
with a bare tool in its process, and through this project's worker, loop, sandbox, grading, reward and trajectory log.
The server is a script with a set token rate, so generation costs both the same. Between them stands this project with
the bare tool, so the sandbox's part is told apart, and beside it the sandbox without early opening. Prints and writes
wall time, CPU time and its parts, side by side.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import copy
import dataclasses
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import ray
import transfer_queue as tq
from omegaconf import DictConfig
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopWorkerTQ

from benchmarks.rollout import Engine, running
from benchmarks.sandbox_bench import footprint, report
from benchmarks.step_workload import BarePool, BareTool, Script, Workload, prompt, recorded
from benchmarks.stopwatch import Stopwatch
from codedance_verl.cluster.connection import keep_to_loopback
from codedance_verl.config.compose import compose_config
from codedance_verl.errors import UserError
from codedance_verl.rollout import agent_loop
from codedance_verl.rollout.worker import CodeDanceAgentLoopWorker
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.pool import SandboxPool, get_or_start_pool
from codedance_verl.trajectories.writer import TrajectoryLog
from recipes.cpu_demo.demo_set import DemoSizes, make_demo_data
from recipes.cpu_demo.tiny_vlm import build_tiny_model

TOOLS_S = (0.005, 0.5)
BARS = {0.005: 0.05, 0.5: 0.10}
"""Most overhead in wall time of the rollouts, by seconds of a tool."""

VERL, BARE, OURS, LATE = "verl, bare tool", "ours, bare tool", "ours, sandbox", "ours, opened late"
WAYS = (VERL, BARE, OURS, LATE)
_VerlWorker: Any = AgentLoopWorkerTQ.__ray_metadata__.modified_class

_BUILDER = "verl.utils.tokenizer.continuous_token:"
_LOOP = "codedance_verl.environment.loop:"
PARTS = {
    f"{_BUILDER}VLContinuousTokenMixin.build_initial_tokens": "templating",
    f"{_BUILDER}ContinuousTokenBuilder.merge_context_tokens": "templating",
    f"{_BUILDER}ContinuousTokenBuilder.merge_assistant_tokens": "templating",
    "transformers:Qwen2VLImageProcessor.__call__": "image processor",
    "qwen_vl_utils:process_vision_info": "image loading",
    "codedance_verl.rollout.agent_loop:load_resized": "image loading",
    "codedance_verl.rollout.worker:_VerlWorker._compute_multi_modal_inputs": "model inputs",
    "codedance_verl.rollout.worker:_VerlWorker._compute_position_ids": "model inputs",
    "codedance_verl.rollout.output:GroupImages.made": "model inputs",
    "verl.trainer.ppo.v1.agent_loop_tq:list_of_dict_to_tensordict": "rows of the queue",
    "transformers:PreTrainedTokenizerFast.decode": "decoding",
    f"{_LOOP}kept_tokens": "parsing",
    "codedance_verl.formats.base:TurnFormat.parse": "parsing",
    f"{_LOOP}fit": "observation",
    f"{_LOOP}shown_images": "observation",
    f"{_LOOP}TokenStream.append_sampled": "token checks",
    f"{_LOOP}TokenStream.append_context": "token checks",
    f"{_LOOP}TokenStream.sampled_prefix": "token checks",
    "codedance_verl.rollout.group_scorer:score_group": "reward",
    "codedance_verl.rollout.worker:scored_output": "reward",
    "codedance_verl.rollout.worker:record_group": "metrics",
    "codedance_verl.rollout.worker:CodeDanceAgentLoopWorker._write_group": "trajectory log",
}


@dataclasses.dataclass(frozen=True)
class Round:
    """One replay: wall seconds, and CPU seconds of the worker's process and of what serves its cells, Ray included.

    `waited_s`: seconds that all trajectories of ours together waited for the sandbox (`Timing.queue_s`).
    """

    wall_s: float
    worker_cpu_s: float
    serving_cpu_s: float
    waited_s: float = 0.0


@dataclasses.dataclass(frozen=True)
class Setup:
    """What all replays share; `pool` is that of the sandbox, and `interpreters` the names of its containers."""

    config: DictConfig
    folder: Path
    pool: SandboxPool
    interpreters: tuple[str, ...]
    rate: float
    rate_each: float

    def serving_cpu_s(self) -> float:
        """CPU seconds so far of the containers and of the processes of Ray."""
        containers = footprint.cpu_seconds(footprint.processes_naming(self.interpreters))
        children = (child.cpu_times() for child in psutil.Process().children(recursive=True))
        return sum(containers.values()) + float(sum(times.user + times.system for times in children))


def _worker(setup: Setup, way: str, client: Script, tool_s: float, folder: Path) -> Any:
    with mock.patch.object(tq, "init"):
        if way == VERL:
            worker = _VerlWorker(setup.config, client)
            worker.tools = [BareTool(tool_s)]
            return worker
        config = copy.deepcopy(setup.config)
        config.environment.open_early = way != LATE
        worker = CodeDanceAgentLoopWorker(config, client)
    # a rollout worker makes its log by its actor's id, which this process has none of
    worker._log = TrajectoryLog(folder / "trajectories", "bench", worker._written.max_bytes)
    return worker


def _noting(write_group: Callable[..., None], waits: list[float]) -> Callable[..., None]:
    """Returns the writer of the trajectory log, which also notes the waits of its group for the sandbox."""

    def written(members: Any, *rest: Any) -> None:
        waits.extend(member.extra_fields["timing"].queue_s for member in members)
        write_group(members, *rest)

    return written


async def replay(setup: Setup, way: str, workload: Workload, watch: Stopwatch | None = None) -> Round:
    """Rolls all groups out at once; every trajectory must end with its answer, else the comparison is none."""
    engine = Engine(None, setup.rate, setup.rate_each)
    tokenizer = _tokenizer(setup)
    client = Script(engine, recorded(tokenizer, workload, seed=0))
    pool: Any = setup.pool if way in (OURS, LATE) else BarePool(workload.tool_s)
    rows: list[Any] = []
    waits: list[float] = []

    async def put(**row: Any) -> None:
        rows.extend(row.get("keys", ()))

    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(mock.patch.object(agent_loop.SandboxPool, "connect", return_value=pool))  # type: ignore[attr-defined]
        stack.enter_context(mock.patch.object(tq, "async_kv_put", put))
        stack.enter_context(mock.patch.object(tq, "async_kv_batch_put", put))
        worker = _worker(setup, way, client, workload.tool_s, folder)
        prompts = [
            prompt(group, workload.size, "tool_agent" if way == VERL else agent_loop.AGENT_NAME)
            for group in range(workload.groups)
        ]
        await stack.enter_async_context(running(engine))
        if watch is not None:
            stack.enter_context(watch.watching(PARTS))
        before, cpu, wall = setup.serving_cpu_s(), time.process_time(), time.perf_counter()
        if way != VERL:
            worker._write_group = _noting(worker._write_group, waits)
        info = {"step": 1, "validate": False, "sample_index": 0, "rollout_n": 0}
        await asyncio.gather(*(worker._run_prompt(prompt, {}, info) for prompt in prompts))
        found = Round(time.perf_counter() - wall, time.process_time() - cpu, max(setup.serving_cpu_s() - before, 0.0))
    if len(rows) != workload.trajectories:
        raise RuntimeError(f"{way}: {len(rows)} of {workload.trajectories} trajectories arrived")
    if any(next(left, None) is not None for left in client._begun.values()):
        raise RuntimeError(f"{way}: not all turns were asked for")
    return found


def _tokenizer(setup: Setup) -> Any:
    from verl.utils import hf_tokenizer

    return hf_tokenizer(setup.config.actor_rollout_ref.model.path)


async def compare(setup: Setup, workload: Workload, rounds: int) -> dict[str, Any]:
    """All ways in turns, in another order each round; the first replay of each, which warms it up, does not count."""
    small = dataclasses.replace(workload, groups=1)
    for way in WAYS:
        await replay(setup, way, small)
    found: dict[str, list[Round]] = {way: [] for way in WAYS}
    for number in range(rounds):
        for way in list(found) if number % 2 else list(found)[::-1]:
            found[way].append(await replay(setup, way, workload))
            print(f"  {workload.tool_s * 1000:g} ms tools, {way}: {found[way][-1].wall_s:.2f} s", file=sys.stderr)
    ways: dict[str, dict[str, Any]] = {
        way: {**_median(replays, workload), "rounds": [dataclasses.asdict(one) for one in replays]}
        for way, replays in found.items()
    }
    for way in ways:
        watch = Stopwatch()
        profiled = await replay(setup, way, workload, watch)
        ways[way]["parts_cpu_ms"] = _parts(watch, profiled, workload)
    wall_s = {way: statistics.median(one.wall_s for one in replays) for way, replays in found.items()}
    over = wall_s[OURS] / wall_s[VERL] - 1
    bar = BARS.get(workload.tool_s)
    return {
        "workload": dataclasses.asdict(workload),
        "ways": ways,
        "wall_overhead": over,
        "wall_overhead_without_sandbox": wall_s[BARE] / wall_s[VERL] - 1,
        "bar": bar,
        "passed": None if bar is None else over <= bar,
    }


def _median(rounds: Sequence[Round], workload: Workload) -> dict[str, float]:
    def middle(name: str) -> float:
        return float(statistics.median(getattr(one, name) for one in rounds))

    each = 1000 / workload.trajectories
    return {
        "wall_s": middle("wall_s"),
        "worker_cpu_ms": middle("worker_cpu_s") * each,
        "serving_cpu_ms": middle("serving_cpu_s") * each,
        "sandbox_wait_ms": middle("waited_s") * each,
    }


def _parts(watch: Stopwatch, profiled: Round, workload: Workload) -> dict[str, float]:
    """CPU milliseconds of the worker's process by trajectory and part; `other` is event loop, Ray's client and glue."""
    each = 1000 / workload.trajectories
    parts = {part: seconds * each for part, seconds in sorted(watch.seconds.items())}
    return {**parts, "other": profiled.worker_cpu_s * each - sum(parts.values())}


def show(found: dict[str, Any]) -> None:
    """Prints one comparison."""
    ways, workload = found["ways"], found["workload"]
    print(f"\ntools of {workload['tool_s'] * 1000:g} ms, {workload['groups'] * workload['size']} trajectories")
    print(f"{'':<24}" + "".join(f"{way:>18}" for way in ways))
    for name, label in (
        ("wall_s", "wall, s"),
        ("worker_cpu_ms", "worker's CPU, ms each"),
        ("serving_cpu_ms", "serving CPU, ms each"),
        ("sandbox_wait_ms", "sandbox wait, ms each"),
    ):
        print(f"{label:<24}" + "".join(f"{way[name]:>18.2f}" for way in ways.values()))
    for part in dict.fromkeys(part for way in ways.values() for part in way["parts_cpu_ms"]):
        print(f"  {part:<22}" + "".join(f"{way['parts_cpu_ms'].get(part, 0.0):>18.2f}" for way in ways.values()))
    bar = "" if found["bar"] is None else f", at most {found['bar']:.0%}: {'pass' if found['passed'] else 'FAIL'}"
    print(f"wall over plain verl {found['wall_overhead']:+.1%}{bar}")


def _config(model: Path, folder: Path) -> DictConfig:
    return compose_config(
        "train",
        [
            "hardware=cpu",
            "recipe=cpu_demo",
            f"run_dir={folder}",
            "data.train_files=none",
            "data.val_files=none",
            f"actor_rollout_ref.model.path={model}",
            "data.max_prompt_length=1024",
            "data.max_response_length=6000",
            "environment.format=tool_call",
            "environment.add_system_prompt=false",
            "environment.max_turns=10",
            "environment.save_trajectories=false",  # the log is made here
            "actor_rollout_ref.rollout.multi_turn.format=hermes",
        ],
    )


@contextlib.contextmanager
def _started(given: argparse.Namespace) -> Iterator[Setup]:
    """Ray with the sandbox's node actor, and the tiny model."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sizes = DemoSizes(sft=64, rl_train=1, rl_val=1, test=1, blank=0, controls=0)
        model = build_tiny_model(make_demo_data(folder / "data", sizes=sizes).sft, folder / "tiny")
        keep_to_loopback({})
        ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
        try:
            # the cells wait, they do not compute: as many at once as there are trajectories
            cells = given.groups * given.size
            pool = get_or_start_pool(SandboxConfig(backend=given.backend, concurrent_cells=cells))
            try:
                names = tuple(name for node in pool.stats() for name in node["interpreters"])
                yield Setup(_config(model, folder), folder, pool, names, given.rate, given.rate_each)
            finally:
                pool.shutdown()
        finally:
            ray.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--groups", type=int, default=8, help="of trajectories, all in flight at once")
    parser.add_argument("--size", type=int, default=8, help="trajectories of a group")
    parser.add_argument("--calls", type=int, default=3, help="calls of a trajectory")
    parser.add_argument("--rounds", type=int, default=3, help="replays of each way")
    parser.add_argument("--rate", type=float, default=2500.0, help="tokens a second of the engine")
    parser.add_argument("--rate-each", type=float, default=80.0, help="tokens a second of one trajectory, at most")
    parser.add_argument("--backend", default="docker", help="of the sandbox: docker, process")
    parser.add_argument("--quick", action="store_true", help="one round of 2 groups of 4")
    parser.add_argument("--output", type=Path, default=Path("outputs/benchmarks/step"))
    given = parser.parse_args()
    if given.quick:
        given.groups, given.size, given.rounds = 2, 4, 1
    results = []
    try:
        with _started(given) as setup:
            for tool_s in TOOLS_S:
                workload = Workload(given.groups, given.size, given.calls, tool_s)
                results.append(asyncio.run(compare(setup, workload, given.rounds)))
                show(results[-1])
    except UserError as error:
        parser.exit(2, f"error: {error}\n")
    settings = {"rate": given.rate, "rate_each": given.rate_each, "rounds": given.rounds, "backend": given.backend}
    report.write(
        given.output / "results.json", {"machine": report.machine_facts(), "settings": settings, "tools": results}
    )
    print(f"written: {given.output}/results.json", file=sys.stderr)


if __name__ == "__main__":
    main()
