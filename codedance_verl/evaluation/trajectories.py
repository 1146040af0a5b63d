"""Reads the trajectory log that `codedance_verl.rollout.trajectory_log` writes, one rollout at a time.

Layout: `<folder>/{train,val}/step_<6 digits>.<worker>.jsonl`, one JSON object per line, pictures in
`<folder>/images/<sha256>.png`. At most one line is held in memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from codedance_verl.errors import UserError
from codedance_verl.formats import DEFAULT_FORMAT
from codedance_verl.trajectories.runs import STEP_FILE
from codedance_verl.types import ExecutionError, ExecutionStatus, FinishReason, Verdict

MAX_LINE_BYTES = 64 << 20
"""A longer line is an error: no rollout within the environment's limits comes near it."""

_SHA256 = re.compile(r"[0-9a-f]{64}")

_Enum = TypeVar("_Enum", bound=StrEnum)


@dataclass(frozen=True)
class LoggedImage:
    """A picture of the log by its hash; size in pixels."""

    sha256: str
    width: int
    height: int

    def file(self, folder: Path) -> Path:
        """Where the PNG lies below the log's folder. Built from the hash alone: the log is not trusted with paths."""
        return folder / "images" / f"{self.sha256}.png"


@dataclass(frozen=True)
class LoggedExecution:
    """`codedance_verl.types.Execution` with pictures by reference."""

    status: ExecutionStatus
    stdout: str
    error: ExecutionError | None
    images: tuple[LoggedImage, ...]
    duration_s: float
    queue_s: float
    truncated: tuple[str, ...]

    @property
    def executed(self) -> bool:
        """False when the code was refused before it ran."""
        return self.status is not ExecutionStatus.REJECTED

    @property
    def succeeded(self) -> bool:
        return self.status in (ExecutionStatus.OK, ExecutionStatus.NO_OUTPUT)


@dataclass(frozen=True)
class LoggedTurn:
    """One assistant turn and the feedback it got."""

    text: str
    code: str | None
    observation: str | None
    execution: LoggedExecution | None


@dataclass(frozen=True)
class LoggedReward:
    """`codedance_verl.types.RewardTerms`."""

    accuracy: float
    format: float
    difficulty: float
    sequence: float
    score: float
    turns: tuple[float, ...]
    masked: bool


@dataclass(frozen=True)
class LoggedTiming:
    """Wall seconds of one rollout by activity. `grade_s` is None where the writer did not time grading."""

    generate_s: float
    execute_s: float
    queue_s: float
    total_s: float
    grade_s: float | None = None


@dataclass(frozen=True)
class LoggedTrajectory:
    """One finished rollout as written by a rollout worker."""

    step: int
    split: str
    group: str
    sample: int
    record_id: str
    data_source: str
    kind: str
    difficulty: str | None
    variant: str | None
    question: str
    ground_truth: str
    input_images: tuple[LoggedImage, ...]
    turns: tuple[LoggedTurn, ...]
    finish: FinishReason
    answer: str | None
    verdict: Verdict
    rung: str
    evidence: str
    reward: LoggedReward
    timing: LoggedTiming
    format: str = DEFAULT_FORMAT

    @property
    def executions(self) -> tuple[LoggedExecution, ...]:
        return tuple(turn.execution for turn in self.turns if turn.execution is not None)


@dataclass(frozen=True)
class LogFile:
    """One file of the log and the training step it belongs to."""

    path: Path
    step: int


class TrajectoryReader:
    """Streams the rollouts of one split of a log, files ordered by step and then by time of writing.

    A last line that a killed writer left unfinished is skipped and counted in `cut_off`.
    """

    def __init__(self, folder: Path, split: str) -> None:
        self._folder = folder / split
        self.cut_off = 0

    def files(self) -> list[LogFile]:
        """Raises UserError when there is no log for this split."""
        if not self._folder.is_dir():
            raise UserError(f"no trajectory log at {self._folder}; run with environment.save_trajectories=true")
        found = [
            LogFile(path, int(name.group(1)))
            for path in self._folder.iterdir()
            if (name := STEP_FILE.fullmatch(path.name))
        ]
        return sorted(found, key=lambda file: (file.step, file.path.stat().st_mtime_ns, file.path.name))

    def __iter__(self) -> Iterator[LoggedTrajectory]:
        """Raises UserError naming file and line where a line is not a rollout."""
        for file in self.files():
            yield from self.read(file.path)

    def read(self, path: Path) -> Iterator[LoggedTrajectory]:
        """The rollouts of one file."""
        with path.open("rb") as stream:
            for number, line in enumerate(iter(lambda: stream.readline(MAX_LINE_BYTES + 1), b""), start=1):
                if len(line) > MAX_LINE_BYTES:
                    raise UserError(f"{path}:{number}: longer than {MAX_LINE_BYTES >> 20} MiB; this is not a rollout")
                try:
                    yield parse_trajectory(json.loads(line))
                except (ValueError, TypeError, _Malformed) as error:
                    if not line.endswith(b"\n"):
                        self.cut_off += 1
                        return
                    raise UserError(f"{path}:{number}: not a rollout ({error}); delete the line or the file") from None


class _Malformed(Exception):
    """What is wrong with a rollout, in words."""


def parse_trajectory(value: Any) -> LoggedTrajectory:
    """A line of the log, already decoded from JSON. Raises an exception whose text names the first wrong field."""
    grade, reward, timing = (_field(value, name, dict) for name in ("grade", "reward", "timing"))
    return LoggedTrajectory(
        step=_field(value, "step", int),
        split=_field(value, "split", str),
        group=_field(value, "group", str),
        sample=_field(value, "sample", int),
        record_id=_field(value, "record_id", str),
        data_source=_field(value, "data_source", str),
        kind=_field(value, "kind", str),
        difficulty=_optional(value, "difficulty", str),
        variant=_optional(value, "variant", str),
        question=_field(value, "question", str),
        ground_truth=_field(value, "ground_truth", str),
        input_images=_items(value, "input_images", _image),
        turns=_items(value, "turns", _turn),
        finish=_choice(value, "finish", FinishReason),
        answer=_optional(value, "answer", str),
        verdict=_choice(grade, "verdict", Verdict),
        rung=_field(grade, "rung", str),
        evidence=_field(grade, "evidence", str),
        reward=_reward(reward),
        timing=_timing(timing),
        format=_field(value, "format", str) if "format" in value else DEFAULT_FORMAT,
    )


def _timing(value: Any) -> LoggedTiming:
    return LoggedTiming(
        generate_s=_number(value, "generate_s"),
        execute_s=_number(value, "execute_s"),
        queue_s=_number(value, "queue_s"),
        total_s=_number(value, "total_s"),
        grade_s=_number(value, "grade_s") if "grade_s" in value else None,
    )


def _reward(value: Any) -> LoggedReward:
    return LoggedReward(
        accuracy=_number(value, "accuracy"),
        format=_number(value, "format"),
        difficulty=_number(value, "difficulty"),
        sequence=_number(value, "sequence"),
        score=_number(value, "score"),
        turns=tuple(float(item) for item in _field(value, "turns", list)),
        masked=_field(value, "masked", bool),
    )


def _turn(value: Any) -> LoggedTurn:
    execution = _optional(value, "execution", dict)
    return LoggedTurn(
        text=_field(value, "text", str),
        code=_optional(value, "code", str),
        observation=_optional(value, "observation", str),
        execution=_execution(execution) if execution is not None else None,
    )


def _execution(value: Any) -> LoggedExecution:
    error = _optional(value, "error", dict)
    return LoggedExecution(
        status=_choice(value, "status", ExecutionStatus),
        stdout=_field(value, "stdout", str),
        error=ExecutionError(*(_field(error, name, str) for name in ("kind", "message", "traceback")))
        if error is not None
        else None,
        images=_items(value, "images", _image),
        duration_s=_number(value, "duration_s"),
        queue_s=_number(value, "queue_s"),
        truncated=tuple(str(item) for item in _field(value, "truncated", list)),
    )


def _image(value: Any) -> LoggedImage:
    sha256 = _field(value, "sha256", str)
    if not _SHA256.fullmatch(sha256):
        raise _Malformed(f"sha256 {sha256[:80]!r} is no SHA-256 in hex")
    return LoggedImage(sha256, _field(value, "width", int), _field(value, "height", int))


_Item = TypeVar("_Item")


def _items(value: Any, name: str, parse: Callable[[Any], _Item]) -> tuple[_Item, ...]:
    return tuple(parse(item) for item in _field(value, name, list))


def _field(value: Any, name: str, kind: type) -> Any:
    if not isinstance(value, Mapping) or name not in value:
        raise _Malformed(f"{name} is missing")
    found = value[name]
    if not isinstance(found, kind) or (kind is int and isinstance(found, bool)):
        raise _Malformed(f"{name} is {type(found).__name__}, not {kind.__name__}")
    return found


def _optional(value: Any, name: str, kind: type) -> Any:
    if isinstance(value, Mapping) and name in value and value[name] is None:
        return None
    return _field(value, name, kind)


def _number(value: Any, name: str) -> float:
    if isinstance(value, Mapping) and isinstance(value.get(name), int) and not isinstance(value[name], bool):
        return float(value[name])
    return float(_field(value, name, float))


def _choice(value: Any, name: str, choices: type[_Enum]) -> _Enum:
    found = _field(value, name, str)
    if found not in list(choices):
        raise _Malformed(f"{name} {found[:80]!r} is none of {', '.join(choices)}")
    return choices(found)
