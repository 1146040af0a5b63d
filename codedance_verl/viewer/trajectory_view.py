"""One trajectory as a page tells it: turns with what came back, bounded pictures, reward and advantage of each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from codedance_verl.formats import DEFAULT_FORMAT, FORMATS, TurnFormat
from codedance_verl.runtime.text import visible
from codedance_verl.trajectories.lines import items, mapping, number, text
from codedance_verl.viewer.text import SHOWN_CHARS, SHOWN_CODE_CHARS, Shown, python, shown

SHOWN_IMAGES = 12
"""Images of one turn on a page; the others are behind a link."""

QUESTION_IMAGES = 64
"""Images of one question on a page, at most; how many there are beyond that is said."""

SHOWN_TURNS = 50

PARSED_CHARS = 1_000_000
"""A longer text of a turn is shown whole, its code a second time: no model writes one."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_TERMS = ("accuracy", "format", "difficulty", "sequence", "custom", "score")
_SECONDS = ("generate_s", "execute_s", "queue_s", "observe_s", "grade_s", "total_s")


@dataclass(frozen=True)
class Picture:
    """A picture by the SHA-256 of its PNG; sizes in pixels."""

    sha256: str
    width: int
    height: int


@dataclass(frozen=True)
class Call:
    """What came back from the code of a turn."""

    status: str
    stdout: Shown
    error_kind: str
    error_message: Shown
    traceback: Shown
    images: tuple[Picture, ...]
    more_images: int
    seconds: float | None
    waited: float | None
    cut: tuple[str, ...]

    @property
    def succeeded(self) -> bool:
        return self.status in ("ok", "no_output")


@dataclass(frozen=True)
class TurnStory:
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
    rung: str
    style: str
    evidence: Shown
    finish: str
    masked: bool
    images: tuple[Picture, ...]
    more_images: int
    turns: tuple[TurnStory, ...]
    more_turns: int
    terms: tuple[tuple[str, float], ...]
    seconds: tuple[tuple[str, float], ...]
    sequence_advantage: float | None


@dataclass(frozen=True)
class Bounds:
    """How much of a trajectory is shown: characters of a text and of code, pictures of a turn, turns and the first."""

    chars: int = SHOWN_CHARS
    code: int = SHOWN_CODE_CHARS
    images: int = SHOWN_IMAGES
    turns: int = SHOWN_TURNS
    first_turn: int = 0


def tell(record: Mapping[str, Any], bounds: Bounds | None = None) -> TrajectoryView:
    """A line of the log as a story; what is missing or of another type is left out."""
    bounds = bounds or Bounds()
    reward, grade, advantage = (mapping(record.get(name)) for name in ("reward", "grade", "advantage"))
    turns = items(record.get("turns"))
    rewards, advantages = items(reward.get("turns")), items(advantage.get("turns"))
    first = max(0, bounds.first_turn)
    written = FORMATS.get(text(record.get("format")), FORMATS[DEFAULT_FORMAT])
    told = tuple(
        _turn(index, mapping(turns[index]), _at(rewards, index), _at(advantages, index), bounds, written)
        for index in range(first, min(len(turns), first + bounds.turns))
    )
    images, more_images = _pictures(record.get("input_images"), QUESTION_IMAGES)
    return TrajectoryView(
        record=_word(record.get("record_id")),
        kind=_word(record.get("kind")) or _word(record.get("data_source")),
        question=shown(text(record.get("question")), bounds.chars),
        truth=shown(text(record.get("ground_truth")), bounds.chars),
        answer=shown(text(record.get("answer")), bounds.chars),
        verdict=_word(grade.get("verdict")) or "not graded",
        rung=_word(grade.get("rung")),
        style=_word(record.get("style")),
        evidence=shown(text(grade.get("evidence")), bounds.chars),
        finish=_word(record.get("finish")),
        masked=reward.get("masked") is True,
        images=images,
        more_images=more_images,
        turns=told,
        more_turns=max(0, len(turns) - first - len(told)),
        terms=_numbers(reward, _TERMS),
        seconds=_numbers(mapping(record.get("timing")), _SECONDS),
        sequence_advantage=number(advantage.get("sequence")),
    )


def said(record: Mapping[str, Any], limit: int) -> tuple[str, bool]:
    """The first `limit` characters of what all turns wrote and got, for a comparison, and whether there are more."""
    whole = ""
    for part in _parts(record):
        whole += f"{part}\n"
        if len(whole) > limit:
            return visible(whole[:limit]), True
    return visible(whole), False


def _parts(record: Mapping[str, Any]) -> Iterator[str]:
    for index, turn in enumerate(map(mapping, items(record.get("turns")))):
        yield f"turn {index + 1}\n{text(turn.get('text'))}"
        if stdout := text(mapping(turn.get("execution")).get("stdout")):
            yield f"stdout\n{stdout}"


def _turn(
    index: int, turn: Mapping[str, Any], reward: Any, advantage: Any, bounds: Bounds, written: TurnFormat
) -> TurnStory:
    whole, code = text(turn.get("text")), text(turn.get("code"))
    execution = turn.get("execution")
    tokens = turn.get("tokens")
    return TurnStory(
        number=index + 1,
        prose=shown(written.beside_calls(whole) if code and len(whole) <= PARSED_CHARS else whole, bounds.chars),
        code=python(code, bounds.code) if code else None,
        code_left_out=max(0, len(code) - bounds.code),
        call=_call(execution, bounds) if isinstance(execution, Mapping) else None,
        observation=shown(text(turn.get("observation")), bounds.chars),
        tokens=tokens if isinstance(tokens, int) else None,
        reward=number(reward),
        advantage=number(advantage),
    )


def _call(execution: Mapping[str, Any], bounds: Bounds) -> Call:
    error = mapping(execution.get("error"))
    images, more = _pictures(execution.get("images"), bounds.images)
    return Call(
        status=_word(execution.get("status")) or "unknown",
        stdout=shown(text(execution.get("stdout")), bounds.chars),
        error_kind=_word(error.get("kind")),
        error_message=shown(text(error.get("message")), bounds.chars),
        traceback=shown(text(error.get("traceback")), bounds.chars),
        images=images,
        more_images=more,
        seconds=number(execution.get("duration_s")),
        waited=number(execution.get("queue_s")),
        cut=tuple(_word(item) for item in items(execution.get("truncated"))[:10]),
    )


def _pictures(value: object, limit: int) -> tuple[tuple[Picture, ...], int]:
    """The first pictures and the number of others; the log is not trusted with paths, only with hashes."""
    found = [mapping(item) for item in items(value)]
    known = [item for item in found if _SHA256.fullmatch(text(item.get("sha256")))]
    shown_ones = tuple(
        Picture(text(item["sha256"]), _side(item.get("width")), _side(item.get("height"))) for item in known[:limit]
    )
    return shown_ones, max(0, len(known) - limit)


def _side(value: object) -> int:
    return min(max(value, 1), 100_000) if isinstance(value, int) and not isinstance(value, bool) else 1


def _numbers(values: Mapping[str, Any], names: tuple[str, ...]) -> tuple[tuple[str, float], ...]:
    return tuple((name, found) for name in names if (found := number(values.get(name))) is not None)


def _at(values: list[Any], index: int) -> Any:
    return values[index] if index < len(values) else None


def _word(value: object) -> str:
    return visible(text(value)[:200])
