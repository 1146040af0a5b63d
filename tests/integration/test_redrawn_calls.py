"""Branches in real sandbox sessions, as processes: replayed cells bring back variables, images and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from unittest import mock

from PIL import Image

from codedance_verl.environment.branch import call_places, kept_of
from codedance_verl.formats import get_format
from codedance_verl.rollout.output import KEPT
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.pool import SandboxPool
from codedance_verl.types import Branch, ExecutionStatus
from tests.unit.environment.harness import Say, Script, _Model, loop_of, tokenizer

WRITTEN = get_format("code")
SETS = "import random\nfound = [3, 4]\nsmall = input_image.resize((28, 28))\nprint(random.Random(0).random())"
SHOWS = "from PIL import Image\nImage.new('RGB', (56, 56), (found[0], 0, 0)).show()\nfound.append(5)"
FAILS = "print(found[9])"
CLOCK = "import time\nprint(time.time_ns())"
ANSWER = "<answer>12</answer>"


def call(code: str) -> str:
    return f"<think>so</think>{WRITTEN.render_call(code)}"


def rest_of_call(code: str) -> str:
    return WRITTEN.render_call(code).removeprefix(WRITTEN.call_start)


async def roll(pool: SandboxPool, says: Sequence[str], **kept: Any) -> Any:
    script = Script([Say(said) for said in says], response_length=4_000)
    content = [{"type": "image", "image": Image.new("RGB", (90, 60), "teal")}, {"type": "text", "text": "How many?"}]
    with mock.patch.object(SandboxPool, "connect", return_value=pool):
        return await loop_of(script, _Model(script)).run(
            {},
            raw_prompt=[{"role": "user", "content": content}],
            reward_model={"ground_truth": "12"},
            data_source="test",
            extra_info={"record_id": "test-0"},
            **kept,
        )


async def branch_of(pool: SandboxPool, parent: Any, turn: int, says: Sequence[str]) -> Any:
    place = next(place for place in call_places(parent.rollout, tokenizer(), WRITTEN) if place.turn == turn)
    return await roll(pool, says, **{KEPT: kept_of(parent.rollout, Branch(0, turn, place.token))})


async def play() -> None:
    config = SandboxConfig(backend="process", containers=1, standby_containers=0, cell_timeout_s=20)
    async with SandboxPool.local(config) as pool:
        parent = await roll(pool, [call(SETS), call(SHOWS), call(FAILS), ANSWER])
        assert [turn.execution and turn.execution.status for turn in parent.trajectory.turns] == [
            ExecutionStatus.OK,
            ExecutionStatus.OK,
            ExecutionStatus.ERROR,
            None,
        ]
        # two branches at once, each in a session in which the cells before the failed call have run once
        says = [rest_of_call("print(sum(found), small.size)"), ANSWER]
        branches = await asyncio.gather(*(branch_of(pool, parent, 2, says) for _ in range(2)))
        for branch in branches:
            assert not branch.replay_differs and branch.trajectory.branch is not None
            found = branch.trajectory.turns[2].execution
            assert found is not None and found.stdout == "12 (28, 28)\n"
            assert branch.trajectory.turns[:2] == parent.trajectory.turns[:2]
            assert len(branch.multi_modal_data["images"]) == 2 and branch.trajectory.answer == "12"
        # a first call needs no replay: what the parent's session had is not there
        first = await branch_of(pool, parent, 0, [rest_of_call("print('found' in dir())"), ANSWER])
        assert first.trajectory.turns[0].execution is not None
        assert first.trajectory.turns[0].execution.stdout == "False\n"
        # a cell that reads a clock cannot be brought back: a whole rollout takes the place of the branch
        timed = await roll(pool, [call(CLOCK), call(FAILS), ANSWER])
        fresh = await branch_of(pool, timed, 1, [call("print(1)"), ANSWER])
        assert fresh.replay_differs and fresh.trajectory.branch is None
        assert [turn.code for turn in fresh.trajectory.turns] == ["print(1)", None]


def test_a_branch_finds_the_session_of_its_parent_or_is_a_whole_rollout() -> None:
    asyncio.run(play())
