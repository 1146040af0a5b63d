"""Workload of `benchmarks.step`: trajectories, the script that says their turns, and the tool without a sandbox."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import io
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

from PIL import Image
from verl.tools.base_tool import BaseTool
from verl.tools.schemas import OpenAIFunctionToolSchema, ToolResponse

from benchmarks.rollout import Engine
from codedance_verl.environment.call_watch import CallWatch
from codedance_verl.formats import get_format, render_answer
from codedance_verl.formats.tool_call import FUNCTION
from codedance_verl.types import Execution, ExecutionStatus, RenderedImage

CALL = get_format("tool_call")
BOX = (20, 20, 132, 132)
SIDE = 224


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
class Said:
    """Tokens of a turn, and how many there are up to the tag of its call, that included; all of them without one."""

    ids: list[int]
    until_tag: int


class Script:
    """Stands for the vLLM servers: says the turns of one trajectory after another, each at the pace of the engine.

    Which trajectory gets which is by the order of their first requests; all have the same number of calls.
    """

    def __init__(self, engine: Engine, turns: Sequence[Sequence[Said]]) -> None:
        self._engine = engine
        self._waiting = iter(turns)
        self._begun: dict[str, Iterator[Said]] = {}

    async def generate(self, request_id: str, call_watch: CallWatch | None = None, **_: Any) -> Any:
        if request_id not in self._begun:
            self._begun[request_id] = iter(next(self._waiting))
        said = next(self._begun[request_id])
        if call_watch is not None and said.until_tag < len(said.ids):
            await self._engine.sampled(said.until_tag)
            call_watch.seen()
            await self._engine.sampled(len(said.ids) - said.until_tag)
        else:
            await self._engine.sampled(len(said.ids))
        return SimpleNamespace(
            token_ids=list(said.ids),
            log_probs=[-0.5] * len(said.ids),
            stop_reason="completed",
            extra_fields={"global_steps": 0, "min_global_steps": 0, "max_global_steps": 0},
            num_preempted=None,
            routed_experts=None,
        )


def code(tool_s: float) -> str:
    """Code that takes so long and shows a crop."""
    return f"import time\ntime.sleep({tool_s})\ninput_image.crop({BOX})"


def recorded(tokenizer: Any, workload: Workload, seed: int) -> list[list[Said]]:
    """Turns of each trajectory: a thought of 40 to 160 words, then a call or the answer."""
    chance = random.Random(seed)

    def encoded(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False))

    def turn(tail: str) -> Said:
        thought, rest = encoded(f"<think>{'so ' * chance.randint(40, 160)}</think>"), encoded(tail)
        parts = (end for end in range(len(rest)) if CALL.call_prefix in tokenizer.decode(rest[:end]))
        return Said([*thought, *rest], len(thought) + next(parts, len(rest)))

    call = CALL.render_call(code(workload.tool_s))
    return [
        [*(turn(call) for _ in range(workload.calls)), turn(render_answer("1"))] for _ in range(workload.trajectories)
    ]


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


def prompt(group: int, size: int, agent: str) -> dict[str, Any]:
    """Returns a group of `size` rollouts as a rollout worker gets it."""
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
