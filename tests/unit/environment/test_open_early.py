"""A sandbox session that is opened while the turn with its first call is still being sampled."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Self
from unittest import mock

import pytest

from codedance_verl.environment.call_watch import CallWatch, TagSearch
from codedance_verl.environment.sandbox_client import EarlyOpening
from codedance_verl.formats import FORMATS, get_format
from codedance_verl.sandbox.errors import SandboxBusy, UnknownSession
from codedance_verl.sandbox.pool import SandboxPool
from codedance_verl.types import Execution, ExecutionStatus, FinishReason
from tests.unit.environment.harness import Say, Script, loop_of
from tests.unit.environment.pools import CountingPool

CALL = get_format("code").render_call("print(1)")
ANSWER = "<answer>1</answer>"


@dataclass
class Pool(CountingPool):
    """Pool of which a test says when it opens a session; it counts the sessions that were ever open."""

    may_open: asyncio.Event = field(default_factory=asyncio.Event)
    refusals: int = 0
    opened: int = 0
    open_sessions: int = 0

    @contextlib.asynccontextmanager
    async def session(self, *images: bytes) -> AsyncIterator[Self]:
        await self.may_open.wait()
        if self.refusals:
            self.refusals -= 1
            raise SandboxBusy("full")
        async with super().session(*images) as session:
            self.opened += 1
            yield session

    async def run(self, code: str) -> Execution:
        return Execution(ExecutionStatus.OK, stdout="1\n")


@dataclass
class Server:
    """Says its turns; between the tag of a call and the end of a turn it waits for `until`, if the tag is watched."""

    says: list[Say]
    until: Callable[[], bool] = lambda: True
    watches: list[CallWatch | None] = field(default_factory=list)

    async def generate(self, call_watch: CallWatch | None = None, **request: Any) -> Any:
        self.watches.append(call_watch)
        say = self.says.pop(0)
        if call_watch is not None and call_watch.tag in say.text:
            call_watch.seen()
            call_watch.seen()  # twice is once
            for _ in range(1_000):
                if self.until():
                    break
                await asyncio.sleep(0)
            assert self.until()
        ids = say.token_ids[: request["sampling_params"]["max_tokens"]]
        reason = "aborted" if say.aborted else "completed"
        return SimpleNamespace(token_ids=ids, log_probs=[-0.5] * len(ids), stop_reason=reason, extra_fields={})


async def rolled_out(pool: Pool, server: Server, **changes: Any) -> Any:
    """The output; every session is closed then."""
    script = Script([], **changes)
    record = {
        "raw_prompt": [{"role": "user", "content": "How many?"}],
        "reward_model": {"ground_truth": "1"},
        "extra_info": {"record_id": "test-0", **script.extra_info},
    }
    with mock.patch.object(SandboxPool, "connect", return_value=pool):
        loop = loop_of(script, None)
        loop.multi_turn = dataclasses.replace(loop.multi_turn, server=server)
        output = await loop.run({}, **record)
    assert pool.open_sessions == 0
    return output


def play(
    *says: str | Say, until: Callable[[Pool], bool] = lambda pool: True, **changes: Any
) -> tuple[Any, Pool, Server]:
    async def run() -> tuple[Any, Pool, Server]:
        pool = Pool()
        pool.may_open.set()
        server = Server([Say(said) if isinstance(said, str) else said for said in says], lambda: until(pool))
        return await rolled_out(pool, server, **changes), pool, server

    return asyncio.run(run())


def is_open(pool: Pool) -> bool:
    return pool.open_sessions == 1


def test_the_session_is_open_before_the_turn_has_ended_and_is_the_one_that_runs_the_code() -> None:
    output, pool, server = play(CALL, CALL, ANSWER, until=is_open)
    assert output.trajectory.finish is FinishReason.ANSWER
    assert [turn.execution.stdout for turn in output.trajectory.turns[:2]] == ["1\n", "1\n"]
    assert pool.opened == 1
    assert [watch is None for watch in server.watches] == [False, True, True]  # an open session needs no watch
    assert output.extra_fields["early_opening"] is EarlyOpening.USED


@pytest.mark.parametrize(
    ("said", "finish"),
    [
        (f"<think>with <code> I would</think>{ANSWER}", FinishReason.ANSWER),
        ("<think>so</think><code>\n```python\nprint(", FinishReason.NO_ACTION),
        (Say("<code>\n```python\npr", aborted=True), FinishReason.INFRASTRUCTURE),
    ],
    ids=["named in a thought", "broken off by the model", "aborted"],
)
def test_a_session_opened_in_vain_is_closed_and_counted(said: str | Say, finish: FinishReason) -> None:
    output, pool, _ = play(said, until=is_open)
    assert output.trajectory.finish is finish
    assert pool.opened == 1
    assert output.extra_fields["early_opening"] is EarlyOpening.IN_VAIN


def test_an_opening_that_is_not_done_when_the_trajectory_ends_is_given_up() -> None:
    async def run() -> tuple[Any, Pool]:
        pool = Pool()  # opens nothing
        return await rolled_out(pool, Server([Say(f"<think><code></think>{ANSWER}")])), pool

    output, pool = asyncio.run(run())
    assert pool.opened == 0
    assert output.extra_fields["early_opening"] is EarlyOpening.NONE


def test_an_opening_that_is_refused_costs_none_of_the_retries() -> None:
    async def run() -> tuple[Any, Pool]:
        pool = Pool(refusals=1)
        pool.may_open.set()
        output = await rolled_out(pool, Server([Say(CALL), Say(ANSWER)]), environment={"sandbox_retries": 0})
        return output, pool

    output, pool = asyncio.run(run())
    assert output.trajectory.finish is FinishReason.ANSWER and pool.opened == 1
    assert output.extra_fields["sandbox_retries"] == 0
    assert output.extra_fields["early_opening"] is EarlyOpening.NONE


@dataclass
class Leases(Pool):
    """Pool that has closed a session before one of its cells, both told by their numbers."""

    ended: Sequence[tuple[int, int]] = ()

    @contextlib.asynccontextmanager
    async def session(self, *images: bytes) -> AsyncIterator[Any]:
        async with super().session(*images):
            number, cells = self.opened, itertools.count(1)

            async def run(code: str) -> Execution:
                if (number, next(cells)) in self.ended:
                    raise UnknownSession("its lease has ended")
                return await self.run(code)

            yield SimpleNamespace(run=run)


@pytest.mark.parametrize(
    ("ended", "finish", "opened", "early"),
    [
        ([(1, 1)], FinishReason.ANSWER, 2, EarlyOpening.IN_VAIN),
        ([(1, 1), (2, 1)], FinishReason.INFRASTRUCTURE, 2, EarlyOpening.IN_VAIN),
        ([(1, 2)], FinishReason.INFRASTRUCTURE, 1, EarlyOpening.USED),
    ],
    ids=["before its first cell", "twice", "with variables"],
)
def test_a_session_whose_lease_has_ended_is_opened_once_more_before_its_first_cell(
    ended: Sequence[tuple[int, int]], finish: FinishReason, opened: int, early: EarlyOpening
) -> None:
    async def run() -> tuple[Any, Pool]:
        pool = Leases(ended=ended)
        pool.may_open.set()
        return await rolled_out(pool, Server([Say(CALL), Say(CALL), Say(ANSWER)], lambda: is_open(pool))), pool

    output, pool = asyncio.run(run())
    assert output.trajectory.finish is finish and pool.opened == opened
    assert output.extra_fields["early_opening"] is early
    assert output.extra_fields["sandbox_retries"] == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"environment": {"open_early": False}},
        {"environment": {"max_turns": 1}},  # code of the last turn is not run
        {"extra_info": {"control": "no_tools", "variant": "no_tools"}},
    ],
    ids=["switched off", "last turn", "calls are banned"],
)
def test_no_session_is_opened_early_where_it_would_be_of_no_use(changes: dict[str, Any]) -> None:
    _, _, server = play(CALL, ANSWER, **changes)
    assert server.watches[0] is None


def test_without_early_opening_the_session_is_opened_for_the_first_cell() -> None:
    output, pool, _ = play(CALL, ANSWER, environment={"open_early": False})
    assert output.trajectory.finish is FinishReason.ANSWER and pool.opened == 1
    assert output.extra_fields["early_opening"] is EarlyOpening.NONE


def test_a_turn_in_two_requests_opens_its_session_before_the_second() -> None:
    opened: list[bool] = []

    class InParts(Server):
        async def generate(self, call_watch: CallWatch | None = None, **request: Any) -> Any:
            for _ in range(50):
                await asyncio.sleep(0)
            opened.append(is_open(pool))
            return await super().generate(None, **request)

    async def run() -> Any:
        pool.may_open.set()
        says = [Say("<think>so</think><code>"), Say(CALL.removeprefix("<code>")), Say(ANSWER)]
        return await rolled_out(pool, InParts(says), sampling={"code_temperature": 0.5})

    pool = Pool()
    output = asyncio.run(run())
    assert opened == [False, True, True]
    assert output.extra_fields["early_opening"] is EarlyOpening.USED


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_a_tag_is_found_however_it_is_spread_over_parts_and_not_before_it_is_whole(format: Any) -> None:
    before = "<think>a <co and ``</think>\n"
    whole = before + format.render_call("print(1)")
    complete = whole.index(format.call_prefix) + len(format.call_prefix)
    for size in range(1, 12):
        search = TagSearch(format.call_prefix)
        for end in [*range(size, len(whole), size), len(whole)]:
            assert search.grown(whole[:end]) == (end >= complete)
