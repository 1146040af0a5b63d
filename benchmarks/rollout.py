"""Hold-ups of generation by running code: `python -m benchmarks.rollout [--quick]`.

Replays a workload of trajectories (1 to 6 turns, tool times from 5 ms to 10 s with a heavy tail) through the real agent
loop and the real sandbox pool, against an engine that stands in for vLLM and has a set token rate. Beside it, in the
same run, the same workload as the method's published release does it: all generate a turn, then the code of all runs in
waves of 8, one after another, each with a barrier. Prints and writes ratios, overlap, and the memory of this process.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import io
import json
import math
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import psutil
from omegaconf import OmegaConf
from PIL import Image
from transformers import AutoProcessor
from verl.experimental.agent_loop.agent_loop import DictConfigWrap, ToolListWrap
from verl.utils.dataset.rl_dataset import RLHFDataset

from codedance_verl.errors import UserError
from codedance_verl.formats import get_format, render_answer
from codedance_verl.rollout import agent_loop
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.pool import SandboxPool
from recipes.cpu_demo.demo_set import DemoSizes, make_demo_data
from recipes.cpu_demo.tiny_vlm import build_tiny_model

LEVELS = (64, 256)
CROWDS = (64, 256, 1024)
SHORTEST_TOOL_S, LONGEST_TOOL_S = 0.005, 10.0
WAVE = 8
TICK_S = 0.005
CODE = get_format("code")


@dataclasses.dataclass(frozen=True)
class PlannedTurn:
    """A turn: how many tokens it has, and for how long its code runs; None: it answers."""

    tokens: int
    tool_s: float | None


Plan = tuple[PlannedTurn, ...]


def make_workload(count: int, seed: int) -> list[Plan]:
    """1 to 6 turns, each as likely; most calls are short, a few take as long as everything else."""
    chance = random.Random(seed)
    plans = []
    for _ in range(count):
        calls = chance.randint(0, 5)
        turns = [PlannedTurn(chance.randint(60, 400), _tool_s(chance)) for _ in range(calls)]
        plans.append((*turns, PlannedTurn(chance.randint(30, 200), None)))
    return plans


def _tool_s(chance: random.Random) -> float:
    return min(max(math.exp(chance.gauss(math.log(0.05), 2.0)), SHORTEST_TOOL_S), LONGEST_TOOL_S)


class Engine:
    """Stands in for vLLM: all requests share `rate` tokens a second, none gets more than `rate_each`."""

    def __init__(self, tokenizer: Any, rate: float, rate_each: float) -> None:
        self._tokenizer = tokenizer
        self._rate, self._rate_each = rate, rate_each
        self._left: dict[asyncio.Future[None], float] = {}
        self.tokens = 0

    async def generate(self, plan: Plan, turn: int) -> list[int]:
        ids = self._ids(plan[turn])
        await self.sampled(len(ids))
        return ids

    async def sampled(self, tokens: int) -> None:
        """Takes as long as so many tokens of one request."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._left[done] = tokens
        self.tokens += tokens
        await done

    def least_seconds(self, plans: Sequence[Plan]) -> float:
        """Seconds that this engine takes for `plans` when all code runs at once and costs nothing but its own time."""
        phases = [
            [float(part) for turn in plan for part in (len(self._ids(turn)), turn.tool_s or 0.0)] for plan in plans
        ]
        now = 0.0
        while phases := [left for left in phases if left]:
            generating = sum(len(left) % 2 == 0 for left in phases)
            rate = min(self._rate_each, self._rate / max(generating, 1))
            rates = [rate if len(left) % 2 == 0 else 1.0 for left in phases]
            step = min(left[0] / speed for left, speed in zip(phases, rates, strict=True))
            now += step
            for left, speed in zip(phases, rates, strict=True):
                left[0] -= step * speed
                if left[0] <= 1e-9:
                    del left[0]
        return now

    def seconds_alone(self, plan: Plan) -> float:
        """Seconds of a trajectory that shares the engine with nobody: its tokens at the highest rate, and its code."""
        tokens = sum(len(self._ids(turn)) for turn in plan)
        return tokens / self._rate_each + sum(turn.tool_s or 0.0 for turn in plan)

    async def run(self) -> None:
        """Hands out tokens until cancelled."""
        last = time.monotonic()
        while True:
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            share = min(self._rate_each, self._rate / max(len(self._left), 1)) * (now - last)
            last = now
            for done in [*self._left]:
                self._left[done] -= share
                if self._left[done] <= 0:
                    del self._left[done]
                    done.set_result(None)

    def _ids(self, turn: PlannedTurn) -> list[int]:
        text = render_answer("1") if turn.tool_s is None else CODE.render_call(cell(turn.tool_s))
        ids = list(self._tokenizer.encode(text, add_special_tokens=False))
        start, end = (list(self._tokenizer.encode(tag, add_special_tokens=False)) for tag in ("<think>", "</think>"))
        words = list(self._tokenizer.encode("so " * 400, add_special_tokens=False))
        # a thought that is not closed would swallow the call
        return start + words[: max(turn.tokens - len(start) - len(end) - len(ids), 0)] + end + ids


def cell(seconds: float) -> str:
    """Code that takes so long and prints something."""
    return f"import time\ntime.sleep({seconds:.3f})\nprint(input_image.size)"


class _Client:
    """The engine as one trajectory of the agent loop sees it."""

    def __init__(self, engine: Engine, plan: Plan) -> None:
        self._engine, self._plan, self._turn = engine, plan, 0

    async def generate(self, **_: Any) -> Any:
        ids = await self._engine.generate(self._plan, self._turn)
        self._turn += 1
        return SimpleNamespace(token_ids=ids, log_probs=[-0.5] * len(ids), stop_reason="completed", extra_fields={})


@dataclasses.dataclass(frozen=True)
class Setup:
    processor: Any
    pool: SandboxPool
    rate: float
    rate_each: float


def _ignore(_: Any) -> None:
    """Drops a finished rollout."""


async def as_we_do(setup: Setup, plans: Sequence[Plan], engine: Engine, ended: Callable[[Any], None] = _ignore) -> None:
    """Every trajectory on its own, all at once; `ended` gets the agent loop's output of each."""
    config = OmegaConf.create(
        {
            "environment": {"add_system_prompt": False},
            "sampling": {},
            "sandbox": {},
            "actor_rollout_ref": {"rollout": {"prompt_length": 1024, "response_length": 6000}},
            "data": {},
        }
    )

    async def one(plan: Plan) -> None:
        loop = agent_loop.CodeDanceAgentLoop(
            trainer_config=DictConfigWrap(config),
            server_manager=_Client(engine, plan),
            tokenizer=setup.processor.tokenizer,
            processor=setup.processor,
            hf_model_type="qwen2_5_vl",
            dataset_cls=RLHFDataset,
            data_config=DictConfigWrap(config.data),
            tools=ToolListWrap([]),
        )
        content = [{"type": "image", "bytes": IMAGE, "image": Image.open(io.BytesIO(IMAGE))}]
        output = await loop.run(
            {},
            raw_prompt=[{"role": "user", "content": [*content, {"type": "text", "text": "How many?"}]}],
            reward_model={"ground_truth": "1"},
            extra_info={},
        )
        trajectory = output.extra_fields["trajectory"]
        assert len(trajectory.turns) == len(plan) and trajectory.answer == "1", trajectory
        ended(output)

    with mock.patch("codedance_verl.rollout.agent_loop.SandboxPool.connect", return_value=setup.pool):
        await asyncio.gather(*map(one, plans))


async def _in_waves(setup: Setup, plans: Sequence[Plan], engine: Engine) -> None:
    """All generate a turn; then their code runs in waves, each with a barrier; and so on."""
    async with contextlib.AsyncExitStack() as sessions:
        opened: dict[int, Any] = {}

        async def execute(index: int, turn: int) -> None:
            if index not in opened:
                opened[index] = await sessions.enter_async_context(setup.pool.session(IMAGE))
            assert (await opened[index].run(cell(plans[index][turn].tool_s or 0.0))).succeeded

        for turn in range(max(map(len, plans))):
            active = [index for index, plan in enumerate(plans) if turn < len(plan)]
            await asyncio.gather(*(engine.generate(plans[index], turn) for index in active))
            calls = [index for index in active if plans[index][turn].tool_s is not None]
            for start in range(0, len(calls), WAVE):
                await asyncio.gather(*(execute(index, turn) for index in calls[start : start + WAVE]))


@contextlib.asynccontextmanager
async def running(engine: Engine) -> AsyncIterator[None]:
    task = asyncio.create_task(engine.run())
    try:
        yield
    finally:
        task.cancel()


async def measure(setup: Setup, count: int, seed: int, *, waves: bool) -> dict[str, Any]:
    """Wall seconds of one workload, and the least that this engine could take for it.

    That is more than the longer of `generation_s` (all tokens at the full rate) and `longest_trajectory_s` (one that
    has the engine for itself): while many generate, even the longest trajectory gets its share only.
    """
    plans = make_workload(count, seed)
    engine = Engine(setup.processor.tokenizer, setup.rate, setup.rate_each)
    peak, process = 0, psutil.Process()

    async def watch_memory() -> None:
        nonlocal peak
        while True:
            peak = max(peak, process.memory_info().rss)
            await asyncio.sleep(0.1)

    watching = asyncio.create_task(watch_memory())
    async with running(engine):
        started = time.monotonic()
        await (_in_waves if waves else as_we_do)(setup, plans, engine)
        wall_s = time.monotonic() - started
    watching.cancel()
    generation_s, longest_s = engine.tokens / setup.rate, max(map(engine.seconds_alone, plans))
    least_s = engine.least_seconds(plans)
    return {
        "trajectories": count,
        "wall_s": wall_s,
        "generation_s": generation_s,
        "longest_trajectory_s": longest_s,
        "least_s": least_s,
        "overlap": least_s / wall_s,
        "tools_s": sum(turn.tool_s or 0.0 for plan in plans for turn in plan),
        "peak_rss_mib": peak / 2**20,
    }


async def compare(setup: Setup, levels: Sequence[int], crowds: Sequence[int], seed: int) -> dict[str, Any]:
    """All measurements; the first, which warms everything up, does not count."""
    await measure(setup, 32, seed + 1, waves=False)
    found: dict[str, Any] = {"levels": [], "memory": []}
    for count in levels:
        ours = await measure(setup, count, seed, waves=False)
        waves = await measure(setup, count, seed, waves=True)
        found["levels"].append({"ours": ours, "waves": waves, "times_faster": waves["wall_s"] / ours["wall_s"]})
        print(
            f"{count} trajectories: {ours['wall_s']:.1f} s, overlap {ours['overlap']:.1%}; in waves "
            f"{waves['wall_s']:.1f} s, {found['levels'][-1]['times_faster']:.1f} times as long",
            flush=True,
        )
    for count in crowds:
        found["memory"].append(await measure(setup, count, seed, waves=False))
        print(f"{count} trajectories: {found['memory'][-1]['peak_rss_mib']:.0f} MiB", flush=True)
    if crowds:
        found["memory_growth"] = found["memory"][-1]["peak_rss_mib"] / found["memory"][0]["peak_rss_mib"] - 1
    return found


def _sample_image() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((112, 112), 60).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


IMAGE = _sample_image()


def tiny_processor() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        data = make_demo_data(
            Path(folder) / "data", sizes=DemoSizes(sft=64, rl_train=1, rl_val=1, test=1, blank=0, controls=0)
        )
        return AutoProcessor.from_pretrained(  # type: ignore[no-untyped-call]
            build_tiny_model(data.sft, Path(folder) / "tiny")
        )


async def run(given: argparse.Namespace) -> dict[str, Any]:
    config = SandboxConfig(backend=given.backend, containers=4, sessions_per_container=300, queue_length=4096)
    async with SandboxPool.local(config) as pool:
        setup = Setup(tiny_processor(), pool, given.rate, given.rate_each)
        levels, crowds = ((16,), ()) if given.quick else (LEVELS, CROWDS)
        return await compare(setup, levels, crowds, given.seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rate", type=float, default=2500.0, help="tokens a second of the engine")
    parser.add_argument("--rate-each", type=float, default=80.0, help="tokens a second of one trajectory, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backend", default="docker", help="of the sandbox: docker, process")
    parser.add_argument("--quick", action="store_true", help="16 trajectories only")
    parser.add_argument("--output", type=Path, default=Path("outputs/benchmarks/rollout"))
    given = parser.parse_args()
    try:
        found = asyncio.run(run(given))
    except UserError as error:
        parser.exit(2, f"error: {error}\n")
    found["settings"] = {"rate": given.rate, "rate_each": given.rate_each, "seed": given.seed}
    given.output.mkdir(parents=True, exist_ok=True)
    (given.output / "results.json").write_text(json.dumps(found, indent=1))
    print(f"written: {given.output}/results.json", file=sys.stderr)


if __name__ == "__main__":
    main()
