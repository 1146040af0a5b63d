"""Attack: its cells, the observation of it, and the conditions under which it counts as contained."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from codedance_verl.types import Execution, ExecutionStatus

BREACH = "BREACH"
"""An attack's code prints this word when it got what it wanted."""


class Needs(StrEnum):
    """Defence that contains an attack. Where a backend lacks it, the attack is skipped, and listed as skipped."""

    NOTHING = "any backend"
    OWN_UIDS = "a user id per session"
    CONTAINER = "a container"


class Fate(StrEnum):
    """Fate of the attacker's own session. Other sessions must come to no harm in any case.

    KEPT: its variables are what they were before, unless the attack ended with `killed` or `timeout`, which may cost
    them. SPOILED: the attack changed the interpreter it runs in, and its further results are worth nothing.
    """

    KEPT = "kept"
    SPOILED = "spoiled"


@dataclass(frozen=True)
class Evidence:
    """Observation: one execution per cell, the wall seconds of the last, and what the cells printed in all.

    `host_growth_mb` is by how much the peak memory of the calling process has grown meanwhile.
    """

    executions: tuple[Execution, ...]
    seconds: float
    host_growth_mb: float

    @property
    def last(self) -> Execution:
        return self.executions[-1]

    @property
    def printed(self) -> str:
        return "\n".join(execution.stdout for execution in self.executions)


Check = Callable[[Evidence], str]
"""Says what is wrong, in a few words; nothing when all is well."""


def nothing_more(_evidence: Evidence) -> str:
    return ""


@dataclass(frozen=True)
class Attack:
    """Cells to be run in a session of their own, and what must come of it.

    `statuses`: how the last cell may end. `refusals`: if it ends with `error`, the classes of exception that show a
    refusal; any other is a defect of the attack itself, which then proves nothing. `check` looks at anything else.
    `alone`: not to be run beside others, because it uses up what they need. `shared_fate`: what it uses up is
    bounded for the container only, so that other sessions there may be lost, as long as they are replaced.
    `timeout_s`: limit of each cell. `pause_s`: time between two cells. `setting_up_may_end`: whether cells before the
    last need not succeed. `with_image`: its session has `input_image`, a red one of 64 x 48 pixels.
    """

    name: str
    group: str
    cells: tuple[str, ...]
    statuses: frozenset[ExecutionStatus]
    refusals: frozenset[str] = frozenset()
    check: Check = nothing_more
    fate: Fate = Fate.KEPT
    needs: Needs = Needs.CONTAINER
    alone: bool = False
    shared_fate: bool = False
    timeout_s: float = 10.0
    pause_s: float = 0.0
    with_image: bool = False


ERROR = frozenset({ExecutionStatus.ERROR})
OK = frozenset({ExecutionStatus.OK, ExecutionStatus.NO_OUTPUT})
TIMEOUT = frozenset({ExecutionStatus.TIMEOUT})
KILLED = frozenset({ExecutionStatus.KILLED})
STOPPED = TIMEOUT | KILLED | ERROR

DENIED = frozenset({"PermissionError"})
NO_SUCH = frozenset({"FileNotFoundError", "ProcessLookupError", "NotADirectoryError", "ConnectionRefusedError"})


def cell(code: str) -> str:
    """An indented block of source as a cell."""
    return textwrap.dedent(code).strip()


def said(evidence: Evidence, words: str) -> str:
    """Checks that the attack got as far as it meant to: without it the attack would prove nothing."""
    return "" if words in evidence.printed else f"the attack did not get as far as {words!r}"
