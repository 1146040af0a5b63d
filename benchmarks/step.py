"""Overhead over plain verl: `python -m benchmarks.step [--quick]`.

The same trajectories, turn by turn the same tokens and images, go through verl's own rollout worker and tool agent loop
with a bare tool in its process, and through this project's worker, loop, sandbox, grading, reward and trajectory log.
The server is a script with a set token rate, so generation costs both the same. Between them stands this project with
the bare tool, so the sandbox's part is told apart. Prints and writes wall time, CPU time and its parts, side by side.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import hashlib
import io
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock
from uuid import uuid4

import psutil
import ray
import transfer_queue as tq
from omegaconf import DictConfig
from PIL import Image
from verl.tools.base_tool import BaseTool
from verl.tools.schemas import OpenAIFunctionToolSchema, ToolResponse
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopWorkerTQ

from benchmarks.rollout import Engine, running
from benchmarks.sandbox_bench import footprint, report
from benchmarks.stopwatch import Stopwatch
from codedance_verl.cluster.connection import keep_to_loopback
from codedance_verl.config.compose import compose_config
from codedance_verl.environment.call_watch import CallWatch
from codedance_verl.errors import UserError
from codedance_verl.formats import get_format, render_answer
from codedance_verl.formats.tool_call import FUNCTION
from codedance_verl.rollout import agent_loop
from codedance_verl.rollout.worker import CodeDanceAgentLoopWorker
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.pool import SandboxPool, get_or_start_pool
from codedance_verl.trajectories.writer import TrajectoryLog
from codedance_verl.types import Execution, ExecutionStatus, RenderedImage
from recipes.cpu_demo.demo_set import DemoSizes, make_demo_data
from recipes.cpu_demo.tiny_vlm import build_tiny_model

TOOLS_S = (0.005, 0.5)
BARS = {0.005: 0.05, 0.5: 0.10}
"""Most overhead in wall time of the rollouts, by seconds of a tool."""

VERL, BARE, OURS = "verl, bare tool", "ours, bare tool", "ours, sandbox"
CALL = get_format("tool_call")
BOX = (20, 20, 132, 132)
SIDE = 224
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
    f"{_LOOP}_shown_images": "observation",
    f"{_LOOP}TokenStream.append_sampled": "token checks",
    f"{_LOOP}TokenStream.append_context": "token checks",
    f"{_LOOP}TokenStream.sampled_prefix": "token checks",
    "codedance_verl.rollout.group_scorer:score_group": "reward",
    "codedance_verl.rollout.worker:scored_output": "reward",
    "codedance_verl.rollout.worker:record_group": "metrics",
    "codedance_verl.rollout.worker:CodeDanceAgentLoopWorker._write_group": "trajectory log",
}


@dataclasses.dataclass(frozen=True)
class Workload:
    """Groups of trajectories; each calls `calls` times, with a tool that takes `tool_s` and shows a crop."""

    groups: int
    size: int
    calls: int
    tool_s: float

    @property
    def trajectories(self) -> int:
        return self.groups * self.size


@dataclasses.dataclass(frozen=True)
class Round:
    """One replay: wall seconds, and CPU seconds of the worker's process and of what serves its cells, Ray included."""

    wall_s: float
    worker_cpu_s: float
    serving_cpu_s: float


class Script:
    """Stands for the vLLM servers: says the turns of one trajectory after another, each at the pace of the engine.

    Which trajectory gets which is by the order of their first requests; all have the same number of calls.
    """

    def __init__(self, engine: Engine, turns: Sequence[Sequence[list[int]]]) -> None:
        self._engine = engine
        self._waiting = iter(turns)
        self._begun: dict[str, Iterator[list[int]]] = {}

    async def generate(self, request_id: str, call_watch: CallWatch | None = None, **_: Any) -> Any:
        if request_id not in self._begun:
            self._begun[request_id] = iter(next(self._waiting))
        ids = next(self._begun[request_id])
        await self._engine.sampled(len(ids))
        return SimpleNamespace(
            token_ids=list(ids),
            log_probs=[-0.5] * len(ids),
            stop_reason="completed",
            extra_fields={"global_steps": 0, "min_global_steps": 0, "max_global_steps": 0},
            num_preempted=None,
            routed_experts=None,
        )


def code(tool_s: float) -> str:
    """Code that takes so long and shows a crop."""
    return f"import time\ntime.sleep({tool_s})\ninput_image.crop({BOX})"


def recorded(tokenizer: Any, workload: Workload, seed: int) -> list[list[list[int]]]:
    """Tokens of each turn of each trajectory: a thought of 40 to 160 words, then a call or the answer."""
    chance, found = random.Random(seed), []

    def turn(tail: str) -> list[int]:
        return list(
            tokenizer.encode(f"<think>{'so ' * chance.randint(40, 160)}</think>{tail}", add_special_tokens=False)
        )

    for _ in range(workload.trajectories):
        calls = [turn(CALL.render_call(code(workload.tool_s))) for _ in range(workload.calls)]
        found.append([*calls, turn(render_answer("1"))])
    return found


class BareTool(BaseTool):  # type: ignore[misc]  # verl ships no types
    """Tool in the worker's process: waits as long as the code would run, and shows the same crop. No code is run."""

    def __init__(self, tool_s: float) -> None:
        schema = {
            "type": "function",
            "function": {
                "name": FUNCTION,
                "description": "Runs Python.",
                "parameters": {"type": "object", "properties": {"code": {"type": "string"}}, "required": ["code"]},
            },
        }
        with contextlib.redirect_stdout(io.StringIO()):  # it prints its schema
            super().__init__({}, OpenAIFunctionToolSchema.model_validate(schema))
        self._tool_s = tool_s

    async def execute(self, instance_id: str, parameters: dict[str, Any], **kwargs: Any) -> Any:
        await asyncio.sleep(self._tool_s)
        image = kwargs["agent_data"].image_data[0]
        return ToolResponse(text="(shown)", image=[image.crop(BOX)]), 0.0, {}


class BarePool:
    """The same tool in the place of the sandbox: pool and session in one."""

    def __init__(self, tool_s: float) -> None:
        self._tool_s = tool_s

    @contextlib.asynccontextmanager
    async def session(self, *images: bytes) -> AsyncIterator[Any]:
        image = Image.open(io.BytesIO(images[0]))

        async def run(_: str) -> Execution:
            await asyncio.sleep(self._tool_s)
            buffer = io.BytesIO()
            image.crop(BOX).save(buffer, "PNG", compress_level=1)
            png = buffer.getvalue()
            shown = RenderedImage(hashlib.sha256(png).hexdigest(), BOX[2] - BOX[0], BOX[3] - BOX[1], png)
            return Execution(ExecutionStatus.OK, images=(shown,), duration_s=self._tool_s)

        yield SimpleNamespace(run=run)


def _image(seed: int) -> bytes:
    buffer = io.BytesIO()
    noise = Image.effect_noise((SIDE // 8, SIDE // 8), 60 + seed % 8).resize((SIDE, SIDE))
    noise.convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def _prompt(group: int, size: int, agent: str) -> dict[str, Any]:
    png = _image(group)
    image = Image.open(io.BytesIO(png)).convert("RGB")
    content = [{"type": "image", "bytes": png, "image": image}, {"type": "text", "text": "How many are there?"}]
    return {
        "uid": uuid4().hex,
        "index": group,
        "agent_name": agent,
        "raw_prompt": [{"role": "user", "content": content}],
        "reward_model": {"ground_truth": "1", "style": "rule"},
        "data_source": "benchmark",
        "extra_info": {"record_id": f"record-{group}"},
        "global_steps": 1,
        "__rollout_n__": size,
    }


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
        worker = CodeDanceAgentLoopWorker(setup.config, client)
    # a rollout worker makes its log by its actor's id, which this process has none of
    worker._log = TrajectoryLog(folder / "trajectories", "bench", worker._written.max_bytes)
    return worker


async def replay(setup: Setup, way: str, workload: Workload, watch: Stopwatch | None = None) -> Round:
    """Rolls all groups out at once; every trajectory must end with its answer, else the comparison is none."""
    engine = Engine(None, setup.rate, setup.rate_each)
    tokenizer = _tokenizer(setup)
    client = Script(engine, recorded(tokenizer, workload, seed=0))
    pool: Any = setup.pool if way == OURS else BarePool(workload.tool_s)
    rows: list[Any] = []

    async def put(**row: Any) -> None:
        rows.extend(row.get("keys", ()))

    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(mock.patch.object(agent_loop.SandboxPool, "connect", return_value=pool))  # type: ignore[attr-defined]
        stack.enter_context(mock.patch.object(tq, "async_kv_put", put))
        stack.enter_context(mock.patch.object(tq, "async_kv_batch_put", put))
        worker = _worker(setup, way, client, workload.tool_s, folder)
        prompts = [
            _prompt(group, workload.size, "tool_agent" if way == VERL else agent_loop.AGENT_NAME)
            for group in range(workload.groups)
        ]
        await stack.enter_async_context(running(engine))
        if watch is not None:
            stack.enter_context(watch.watching(PARTS))
        before, cpu, wall = setup.serving_cpu_s(), time.process_time(), time.perf_counter()
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
    for way in (VERL, BARE, OURS):
        await replay(setup, way, small)
    found: dict[str, list[Round]] = {way: [] for way in (VERL, BARE, OURS)}
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
