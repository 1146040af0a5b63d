"""Replay of the calls of a trajectory in fresh sessions, with the images it had or with others."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Protocol

from codedance_verl.harness.call_outputs import Output, output_of
from codedance_verl.sandbox.errors import SandboxError
from codedance_verl.trajectories.schema import ExecutionRecord, TurnRecord
from codedance_verl.types import Execution, ExecutionStatus

MOST_REOPENED = 3
"""Sessions that a replay opens again after calls that ended theirs."""

_LEAST_S, _MOST_S, _SLOWER = 5.0, 15.0, 10.0
"""Time limit of a cell in a replay: this many times the recorded run time on top of the least, and the most."""

_LONG, _LONGEST_S = 2.0, 600.0
"""Time limit of a cell that took long when it was recorded: this many times its run time, up to the longest."""


class Session(Protocol):
    """Session of a pool, as `sandbox.pool.SandboxSession`."""

    async def run(self, code: str, timeout_s: float | None = None) -> Execution: ...


class Pool(Protocol):
    """Pool of sessions, as `sandbox.pool.SandboxPool`."""

    def session(self, *images: bytes) -> AbstractAsyncContextManager[Session]: ...


@dataclass(frozen=True)
class Call:
    """Call of a trajectory.

    Attributes:
        turn: number of its turn, from 0.
        code: cell as it ran.
        execution: what was recorded of it.
        images_shown: displayed images that the model was shown.
    """

    turn: int
    code: str
    execution: ExecutionRecord
    images_shown: int

    @property
    def limit_s(self) -> float:
        """Time limit of its replay in seconds: altered images may send a loop on for ever."""
        took_s = max(self.execution.duration_s, 0.0)
        # up to 15 s for a call that took less than 7.5 s, twice its time for a longer one
        return max(min(_LEAST_S + _SLOWER * took_s, _MOST_S), min(_LONG * took_s, _LONGEST_S))


def calls_of(turns: Sequence[TurnRecord]) -> tuple[Call, ...]:
    """Calls whose code ran."""
    found = []
    for number, turn in enumerate(turns):
        if turn.code is None or turn.execution is None or not turn.execution.executed:
            continue
        shown = turn.images_shown if turn.images_shown is not None else len(turn.execution.images)
        found.append(Call(number, turn.code, turn.execution, shown))
    return tuple(found)


def parts(calls: Sequence[Call]) -> list[list[Call]]:
    """Runs of calls that shared a namespace: a call that ended its session left the next ones without variables."""
    found: list[list[Call]] = [[]]
    for call in calls:
        if call.execution.status is ExecutionStatus.KILLED:
            found.append([])
        elif call.execution.status is not ExecutionStatus.TIMEOUT:
            found[-1].append(call)  # variables after a time-out are those from before it
    return [part for part in found if part]


async def replay(pool: Pool, images: Sequence[bytes], calls: Sequence[Call]) -> dict[int, Output]:
    """Outputs of calls by turn, run in order in one session.

    A call whose replay times out, ends its session, or meets a fault of the sandbox has no output, and costs itself
    alone: the calls before it are run again in a new session, at most `MOST_REOPENED` times.
    """
    found: dict[int, Output] = {}
    before: list[Call] = []
    pending: Sequence[Call] = calls
    for _ in range(MOST_REOPENED + 1):
        rest = await _in_one_session(pool, images, before, pending, found)
        if not rest:
            return found
        pending = rest[1:]  # the first of them is the one that ended the session
    return found


async def _in_one_session(
    pool: Pool, images: Sequence[bytes], before: list[Call], pending: Sequence[Call], found: dict[int, Output]
) -> Sequence[Call]:
    """Runs calls, adding to `found` and `before`; returns those that are left, beginning with a fatal one."""
    # a fault before any of `pending` counts against the first one, so that each session leaves fewer
    place = 0
    try:
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(pool.session(*images))
            for call in before:
                # what ran the first time ends the session now: later calls would miss its variables
                if _lost(await session.run(call.code, call.limit_s)):
                    return ()
            for place, call in enumerate(pending):
                execution = await session.run(call.code, call.limit_s)
                if _lost(execution):
                    return pending[place:]
                if execution.status in (ExecutionStatus.TIMEOUT, ExecutionStatus.REJECTED):
                    continue
                found[call.turn] = output_of(execution)
                before.append(call)
    except (SandboxError, OSError):
        return pending[place:]
    return ()


def _lost(execution: Execution) -> bool:
    return execution.status is ExecutionStatus.KILLED
