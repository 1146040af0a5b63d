"""View of one trajectory on a page: turns with what came back, bounded images, reward and advantage of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from codedance_verl.formats import DEFAULT_FORMAT, FORMATS, TurnFormat
from codedance_verl.runtime.text import visible
from codedance_verl.trajectories.schema import ExecutionRecord, ImageRef, TrajectoryRecord, TurnRecord
from codedance_verl.trajectories.summary import finite
from codedance_verl.types import Branch
from codedance_verl.viewer.text import SHOWN_CHARS, SHOWN_CODE_CHARS, Shown, python, shown

SHOWN_IMAGES = 12
"""Images of one turn on a page; the others are behind a link."""

QUESTION_IMAGES = 64
"""Images of one question on a page, at most; how many there are beyond that is said."""

SHOWN_TURNS = 50

PARSED_CHARS = 1_000_000
"""A longer text of a turn is shown whole, its code a second time: no model writes one."""

_MAX_SIDE = 100_000
_TERMS = ("accuracy", "format", "difficulty", "sequence", "custom", "score")
_SECONDS = ("generate_s", "execute_s", "queue_s", "observe_s", "grade_s", "total_s")


@dataclass(frozen=True)
class Call:
    """Result of the code of a turn."""

    status: str
    stdout: Shown
    error_kind: str
    error_message: Shown
    traceback: Shown
    images: tuple[ImageRef, ...]
    more_images: int
    seconds: float | None
    waited: float | None
    cut: tuple[str, ...]

    @property
    def succeeded(self) -> bool:
        return self.status in ("ok", "no_output")


@dataclass(frozen=True)
class TurnView:
    """One turn: the text around its code, the code, and the call."""

    number: int
    prose: Shown
    code: Markup | None
    code_left_out: int
    call: Call | None
    observation: Shown
    tokens: int | None
    reward: float | None
    advantage: float | None


@dataclass(frozen=True)
class TrajectoryView:
    """A whole trajectory. Every text in it came from a model, its code or a data file.

    `images` are those of the question, in the order in which code has them as `input_images`.
    """

    record: str
    kind: str
    question: Shown
    truth: Shown
    answer: Shown
    verdict: str
    rule: str
    style: str
    evidence: Shown
    finish: str
    masked: bool
    images: tuple[ImageRef, ...]
    more_images: int
    turns: tuple[TurnView, ...]
    more_turns: int
    terms: tuple[tuple[str, float], ...]
    seconds: tuple[tuple[str, float], ...]
    sequence_advantage: float | None
    branch: Branch | None


@dataclass(frozen=True)
class Bounds:
    """Limits of what a page shows: characters of a text and of code, images of a turn, turns, and the first turn."""

    chars: int = SHOWN_CHARS
    code: int = SHOWN_CODE_CHARS
    images: int = SHOWN_IMAGES
    turns: int = SHOWN_TURNS
    first_turn: int = 0


def trajectory_view(record: TrajectoryRecord, bounds: Bounds | None = None) -> TrajectoryView:
    """The view of a record; what is blank in a damaged one is left out."""
    bounds = bounds or Bounds()
    reward, grade = record.reward, record.grade
    advantages = (record.advantage.turns if record.advantage is not None else None) or ()
    first = max(0, bounds.first_turn)
    written = FORMATS.get(record.format, FORMATS[DEFAULT_FORMAT])
    turns = tuple(
        _turn(index, record.turns[index], _at(reward.turns, index), _at(advantages, index), bounds, written)
        for index in range(first, min(len(record.turns), first + bounds.turns))
    )
    images, more_images = _pictures(record.input_images, QUESTION_IMAGES)
    return TrajectoryView(
        record=_word(record.record_id),
        kind=_word(record.kind or record.data_source),
        question=shown(record.question, bounds.chars),
        truth=shown(record.ground_truth, bounds.chars),
        answer=shown(record.answer or "", bounds.chars),
        verdict=_word(grade.verdict) or "not graded",
        rule=_word(grade.rule),
        style=_word(record.style),
        evidence=shown(grade.evidence, bounds.chars),
        finish=_word(record.finish),
        masked=reward.masked,
        images=images,
        more_images=more_images,
        turns=turns,
        more_turns=max(0, len(record.turns) - first - len(turns)),
        terms=_numbers(reward, _TERMS),
        seconds=_numbers(record.timing, _SECONDS),
        sequence_advantage=finite(record.advantage.sequence) if record.advantage is not None else None,
        branch=record.branch,
    )


def transcript(record: TrajectoryRecord, limit: int) -> tuple[str, bool]:
    """The first `limit` characters of what all turns wrote and got, for a comparison, and whether there are more."""
    whole = ""
    # Stops at the limit: a line may hold hundreds of megabytes.
    for part in _parts(record):
        whole += f"{part}\n"
        if len(whole) > limit:
            return visible(whole[:limit]), True
    return visible(whole), False


def _parts(record: TrajectoryRecord) -> Iterator[str]:
    for number, turn in enumerate(record.turns, start=1):
        yield f"turn {number}\n{turn.text}"
        if turn.execution is not None and turn.execution.stdout:
            yield f"stdout\n{turn.execution.stdout}"


def _turn(
    index: int, turn: TurnRecord, reward: float | None, advantage: float | None, bounds: Bounds, written: TurnFormat
) -> TurnView:
    whole, code = turn.text, turn.code or ""
    return TurnView(
        number=index + 1,
        prose=shown(written.beside_calls(whole) if code and len(whole) <= PARSED_CHARS else whole, bounds.chars),
        code=python(code, bounds.code) if code else None,
        code_left_out=max(0, len(code) - bounds.code),
        call=_call(turn.execution, bounds) if turn.execution is not None else None,
        observation=shown(turn.observation or "", bounds.chars),
        tokens=turn.tokens,
        reward=reward,
        advantage=advantage,
    )


def _call(execution: ExecutionRecord, bounds: Bounds) -> Call:
    error = execution.error
    images, more = _pictures(execution.images, bounds.images)
    return Call(
        status=_word(execution.status) or "unknown",
        stdout=shown(execution.stdout, bounds.chars),
        error_kind=_word(error.kind if error else ""),
        error_message=shown(error.message if error else "", bounds.chars),
        traceback=shown(error.traceback if error else "", bounds.chars),
        images=images,
        more_images=more,
        seconds=finite(execution.duration_s),
        waited=finite(execution.queue_s),
        cut=tuple(_word(item) for item in execution.truncated[:10]),
    )


def _pictures(images: Sequence[ImageRef], limit: int) -> tuple[tuple[ImageRef, ...], int]:
    """The first images and the number of others, those without a hash left out."""
    found = [image for image in images if image.sha256]
    # A page reserves room by these sides: a damaged line must not make it endless.
    bounded = tuple(
        ImageRef(image.sha256, min(max(image.width, 1), _MAX_SIDE), min(max(image.height, 1), _MAX_SIDE))
        for image in found[:limit]
    )
    return bounded, max(0, len(found) - limit)


def _numbers(values: object, names: tuple[str, ...]) -> tuple[tuple[str, float], ...]:
    return tuple((name, found) for name in names if (found := finite(getattr(values, name))) is not None)


def _at(values: Sequence[float | None], index: int) -> float | None:
    return finite(values[index]) if index < len(values) else None


def _word(value: str) -> str:
    return visible(str(value)[:200])
