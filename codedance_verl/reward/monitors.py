"""Collapse monitor of tool use: rates over windows of rollouts, with warnings and an optional stop."""

from __future__ import annotations

import ast
import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, ClassVar

from pydantic import Field

from codedance_verl.config.node import Node
from codedance_verl.reward.tool_calls import UNREADABLE, CallKind, call_kinds, count
from codedance_verl.types import FinishReason, Trajectory

CUT_OFF = (FinishReason.LENGTH, FinishReason.TIME_LIMIT, FinishReason.TURN_LIMIT)
_NAMES_OF_RESULTS = ("answer", "result", "final", "ans", "output")

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int | None, Field(ge=1, le=1_000)]


class MonitorConfig(Node):
    """Bounds of the rates (`conf/monitors.yaml`)."""

    KEY: ClassVar[str] = "monitors"

    window: int = Field(256, ge=8, le=1_000_000)
    """Rollouts of a window."""
    min_tool_rate: Share = 0.01
    """Least share of rollouts with a call."""
    max_tool_rate: Share = 1.0
    """Largest share of rollouts with a call."""
    max_failed: Share = 0.5
    """Largest share of calls that failed."""
    max_invalid: Share = 0.2
    """Largest share of calls that could not be read."""
    max_idle: Share = 0.2
    """Largest share of calls that do nothing."""
    max_repeated: Share = 0.2
    """Largest share of calls whose code ran before in the same trajectory."""
    max_answer_in_code: Share = 0.3
    """Largest share of rollouts whose code has the answer written into it."""
    max_cut_off: Share = 0.3
    """Largest share of rollouts that ended at a limit."""
    stop_after: Count = None
    """Windows in a row out of a bound after which the run ends; None only warns."""
    max_masked_steps: Count = 5
    """Steps in a row without a rollout that counts after which the run ends; None skips any number."""


@dataclass(frozen=True)
class Finding:
    """Rate out of bounds: its name, its value, the bound, and the number of windows in a row."""

    name: str
    rate: float
    bound: float
    windows: int

    def __str__(self) -> str:
        side = "below" if self.rate < self.bound else "above"
        for_long = f" for {self.windows} windows" if self.windows > 1 else ""
        return f"{self.name} is {self.rate:.1%}, {side} its bound of {self.bound:.1%}{for_long}: {_ADVICE[self.name]}"


_ADVICE = {
    "tool_rate": "tool use collapses or is forced; look at some rollouts, and at the tool term of the reward",
    "failed": "most code fails; look at the tracebacks, and at failed_turn",
    "invalid": "calls cannot be read; look at environment.format and at invalid_turn",
    "idle": "calls do nothing; the tool term pays for them, or idle_turn is too mild",
    "repeated": "the same code is run again; idle_turn is too mild",
    "answer_in_code": "code prints an answer that it did not compute",
    "cut_off": "rollouts end at a limit; raise data.max_response_length or environment.max_turns, or look at loops",
}


@dataclass(frozen=True)
class Rates:
    """Rates of a window: `tool_rate`, `answer_in_code`, `cut_off` per rollout; the others per call, 0 without one."""

    tool_rate: float
    failed: float
    invalid: float
    idle: float
    repeated: float
    answer_in_code: float
    cut_off: float


class CollapseMonitor:
    """Counts of rollouts, of which every full window is compared with the bounds."""

    def __init__(self, config: MonitorConfig) -> None:
        self._config = config
        self._counts: Counter[str] = Counter()
        self._in_a_row: Counter[str] = Counter()
        self.rates: Rates | None = None
        """Of the last full window."""

    def add(self, trajectories: Sequence[Trajectory]) -> list[Finding]:
        """Counts rollouts, those that infrastructure ended left out; returns the findings of a full window."""
        for trajectory in trajectories:
            if trajectory.finish is not FinishReason.INFRASTRUCTURE:
                self._counts.update(tool_use_counts(trajectory))
        if self._counts["rollouts"] < self._config.window:
            return []
        self.rates = rates_of(self._counts)
        self._counts.clear()
        return self._findings(self.rates)

    def state(self) -> dict[str, dict[str, int]]:
        """Returns the counts of the unfinished window, and the windows in a row out of bounds; for a checkpoint."""
        return {"counts": dict(self._counts), "in_a_row": dict(self._in_a_row)}

    def restore(self, state: Mapping[str, Mapping[str, int]]) -> None:
        """Resumes from a `state`."""
        self._counts, self._in_a_row = Counter(state["counts"]), Counter(state["in_a_row"])

    @property
    def stop_after(self) -> int | None:
        return self._config.stop_after

    def must_stop(self, findings: Sequence[Finding]) -> bool:
        """True where one of them has lasted for `stop_after` windows."""
        limit = self._config.stop_after
        return limit is not None and any(finding.windows >= limit for finding in findings)

    def _findings(self, rates: Rates) -> list[Finding]:
        config, found = self._config, []
        bounds = {field.name: (0.0, getattr(config, f"max_{field.name}")) for field in fields(rates)}
        bounds["tool_rate"] = (config.min_tool_rate, config.max_tool_rate)
        for name, (low, high) in bounds.items():
            rate = getattr(rates, name)
            if low <= rate <= high:
                self._in_a_row[name] = 0  # one window within its bounds is a recovery
            else:
                self._in_a_row[name] += 1
                found.append(Finding(name, rate, low if rate < low else high, self._in_a_row[name]))
        return found


def tool_use_counts(trajectory: Trajectory) -> dict[str, int]:
    """Returns the summands of one rollout for the counts of its window."""
    kinds = call_kinds(trajectory)
    made = count(kinds)
    return {
        "rollouts": 1,
        "with_calls": int(made > 0),
        "calls": made,
        **{kind.value: count(kinds, kind) for kind in CallKind},
        "answer_in_code": int(answer_in_code(trajectory)),
        "cut_off": int(trajectory.finish in CUT_OFF),
    }


def rates_of(counts: Mapping[str, int]) -> Rates:
    """Returns the rates of summed `tool_use_counts`."""
    # at least 1: a window without a call has rates of 0, not of 0 / 0
    rollouts, calls = max(counts["rollouts"], 1), max(counts["calls"], 1)
    return Rates(
        tool_rate=counts["with_calls"] / rollouts,
        **{name: counts[name] / calls for name in ("failed", "invalid", "idle", "repeated")},
        **{name: counts[name] / rollouts for name in ("answer_in_code", "cut_off")},
    )


def answer_in_code(trajectory: Trajectory) -> bool:
    """True where code shows or names a constant as its result that is the final answer: it was not computed.

    A constant is shown by `print`, by a bare expression, or named by an assignment to `answer`, `result` and the like.
    """
    answer = (trajectory.answer or "").strip().casefold()
    return bool(answer) and any(
        turn.code is not None and turn.execution is not None and answer in shown_constants(turn.code)
        for turn in trajectory.turns
    )


@functools.lru_cache(maxsize=4096)
def shown_constants(code: str) -> frozenset[str]:
    """Constants that the code prints, displays or names as its result, as text in lower case."""
    try:
        tree = ast.parse(code)
    except UNREADABLE:
        return frozenset()
    texts = (_constant(value) for node in ast.walk(tree) for value in _shown(node))
    return frozenset(text.strip().casefold() for text in texts if text is not None)


def _constant(value: ast.expr) -> str | None:
    """Returns the text of a constant with its sign; None for anything else, and for a number too long to write out."""
    if not isinstance(value, ast.Constant | ast.UnaryOp):
        return None
    try:
        return str(ast.literal_eval(value))
    except ValueError:
        return None


def _shown(node: ast.AST) -> Sequence[ast.expr]:
    """Returns the expressions whose values a node prints, displays or names as the result."""
    match node:
        case ast.Call(func=ast.Name(id="print" | "display"), args=arguments):
            return arguments
        case ast.Expr(value=value):
            return [value]
        case (
            ast.Assign(targets=[ast.Name(id=name)], value=ast.expr() as value)
            | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
        ) if name.casefold().startswith(_NAMES_OF_RESULTS):
            return [value]
        case _:
            return []
