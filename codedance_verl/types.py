"""Records that travel between sandbox, rollout, grading, reward and evaluation.

Everything downstream of an execution reads these records; nothing parses decoded text to learn what happened.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

IMAGE_PLACEHOLDER = "<image>"
"""Placeholder of an image in the text of a message, as in verl's data sets."""


class ExecutionStatus(StrEnum):
    """End of one cell. `OK` and `NO_OUTPUT` are the only ones in which the code ran to its end."""

    OK = "ok"
    NO_OUTPUT = "no_output"
    ERROR = "error"
    TIMEOUT = "timeout"
    KILLED = "killed"
    REJECTED = "rejected"


class FinishReason(StrEnum):
    """Reason a trajectory ended. `INFRASTRUCTURE` is never the model's doing and is kept out of loss and statistics."""

    ANSWER = "answer"
    NO_ACTION = "no_action"  # a turn with neither code nor an answer: nothing to react to
    TURN_LIMIT = "turn_limit"
    LENGTH = "length"
    TIME_LIMIT = "time_limit"
    INFRASTRUCTURE = "infrastructure"


class Verdict(StrEnum):
    CORRECT = "correct"
    WRONG = "wrong"
    UNGRADED = "ungraded"


@dataclass(frozen=True)
class RenderedImage:
    """Image that a cell displayed: PNG bytes with their SHA-256 (hex) and size in pixels."""

    sha256: str
    width: int
    height: int
    png: bytes


@dataclass(frozen=True)
class ExecutionError:
    """Exception of the model's code: class name, message, and a short traceback with cell line numbers."""

    kind: str
    message: str
    traceback: str


@dataclass(frozen=True)
class Execution:
    """Result of one cell. `duration_s` is run time alone; waiting for a free sandbox is `queue_s`."""

    status: ExecutionStatus
    stdout: str = ""
    error: ExecutionError | None = None
    images: tuple[RenderedImage, ...] = ()
    duration_s: float = 0.0
    queue_s: float = 0.0
    truncated: tuple[str, ...] = ()
    """Parts that were cut to fit the bounds: `stdout`, `images: N dropped`, `image_size: W x H to w x h`."""

    @property
    def succeeded(self) -> bool:
        """True when the code ran to its end, whatever it printed."""
        return self.status in (ExecutionStatus.OK, ExecutionStatus.NO_OUTPUT)

    def as_record(self, images: Sequence[Any]) -> dict[str, Any]:
        """Fields as logs, replies and commands write them; `images` refer to those of the execution."""
        return {
            "status": self.status.value,
            "stdout": self.stdout,
            "error": asdict(self.error) if self.error is not None else None,
            "images": list(images),
            "duration_s": round(self.duration_s, 6),
            "queue_s": round(self.queue_s, 6),
            "truncated": list(self.truncated),
        }


@dataclass(frozen=True)
class Observation:
    """Feedback turn that the model got: its text, with a placeholder for each of the first `images` images of the
    execution."""

    text: str
    images: int = 0


@dataclass(frozen=True)
class Turn:
    """One assistant turn: its text, its sampled tokens as a half-open span of the response, what its code did, and what
    the model was shown of that; None where it was shown nothing."""

    text: str
    token_start: int
    token_end: int
    code: str | None = None
    execution: Execution | None = None
    observation: Observation | None = None


@dataclass(frozen=True)
class Branch:
    """Part of an earlier rollout of the group that a rollout begins with; what follows was drawn again.

    Attributes:
        parent: number of that rollout in its group.
        turn: number of the turn, from 0, whose call was drawn again.
        token: tokens of the response that were kept; the last of them opens the call.
    """

    parent: int
    turn: int
    token: int


@dataclass(frozen=True)
class Trajectory:
    """Whole rollout of one record.

    `answer` is the text between the answer tags of the last turn, if any; `format` names how calls are written
    (`formats/`), `style` how the record wants its answers graded (`grading/matchers.py`), and `extra_info` is the
    record's own, for graders and reward terms of the user's. `branch` says what it has kept of an earlier rollout; None
    for one that was drawn from its start.
    """

    record_id: str
    data_source: str
    question: str
    ground_truth: str
    turns: tuple[Turn, ...]
    finish: FinishReason
    answer: str | None = None
    format: str = "code"
    style: str = "rule"
    extra_info: Mapping[str, Any] = field(default_factory=dict, hash=False)
    branch: Branch | None = None

    @property
    def executions(self) -> tuple[Execution, ...]:
        return tuple(turn.execution for turn in self.turns if turn.execution is not None)


@dataclass(frozen=True)
class Grade:
    """Verdict on an answer, the rule that gave it, and what it compared."""

    verdict: Verdict
    rule: str
    evidence: str = ""

    @classmethod
    def of(cls, correct: bool, rule: str, evidence: str = "") -> Grade:
        """Correct or wrong."""
        return cls(Verdict.CORRECT if correct else Verdict.WRONG, rule, evidence)

    def to_json(self) -> dict[str, str]:
        """Form in logs and for a reward term of the user's own, where the rule stands under `rung`."""
        return {"verdict": self.verdict, "rung": self.rule, "evidence": self.evidence}

    @property
    def correct(self) -> bool:
        return self.verdict is Verdict.CORRECT


@dataclass(frozen=True)
class RewardTerms:
    """Reward of one trajectory, each term on its own.

    `accuracy`, `format`, `sequence` and `custom` (the user's own term) add up, with the preset's weights, to `score`
    (the sequence-level reward); `turns` holds the immediate reward r_k of each assistant turn, in order, that of the
    answer included.
    `masked` rollouts (infrastructure faults, ungraded answers) count neither in the loss nor in group statistics.
    `custom_fault` says why the user's own term gave no value, in which case the rollout is masked; else it is empty.
    `valid_turns` is the number of turns before a fatal failure: these alone are trained on. None: there was none.
    """

    accuracy: float
    format: float
    difficulty: float
    sequence: float
    score: float
    turns: tuple[float, ...]
    masked: bool = False
    custom: float = 0.0
    custom_fault: str = ""
    valid_turns: int | None = None


def stated_record_id(data_source: object, extra_info: Mapping[str, Any] | None) -> str:
    """Returns the id that a record states: `record_id`, else `<data_source>/<index>`; empty where it has neither."""
    extra = extra_info or {}
    index = extra.get("index")
    if stored := extra.get("record_id"):
        return str(stored)
    return "" if index is None or index == "" else f"{data_source or ''}/{index}"


def record_id_of(record: Mapping[str, Any]) -> str:
    """Returns the id of a record in logs, reports and seeds: the one it states, else its source alone."""
    source = record.get("data_source")
    return stated_record_id(source, record.get("extra_info")) or f"{source or ''}/?"


def question_of(extra_info: Mapping[str, Any] | None, messages: Iterable[tuple[str, str]]) -> str:
    """Returns the question of a record: the one it states, else its last user message without image placeholders.

    `messages` are roles and texts.
    """
    if stated := (extra_info or {}).get("question"):
        return str(stated)
    asked = [text for role, text in messages if role == "user"]
    return asked[-1].replace(IMAGE_PLACEHOLDER, "").strip() if asked else ""


def label_of(value: object) -> str | None:
    """Returns a label of a record as text, whatever its file has; None where it has none."""
    return None if value is None or value == "" else str(value)
