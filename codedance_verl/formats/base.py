"""Base of all formats: thoughts, answers, and the reading of a turn."""

from __future__ import annotations

import functools
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import ClassVar

THINK_START, THINK_END = "<think>", "</think>"
ANSWER_START, ANSWER_END = "<answer>", "</answer>"
TURN_TAGS = (THINK_START, THINK_END, ANSWER_START, ANSWER_END)
"""Tags that every format has."""


@dataclass(frozen=True)
class ParsedTurn:
    """Request of a turn; at most one of the first three is set.

    Attributes:
        code: source to run.
        answer: stripped text of the answer block.
        fault: defect of a call that cannot be read: the model is shown it, and nothing is run.
        start: position in the turn of the call or the answer; 0 where there is none.
    """

    code: str | None = None
    answer: str | None = None
    fault: str | None = None
    start: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Call:
    """Call from its opening tag on.

    Attributes:
        code: source to run.
        fault: defect of the call; None, beside no code either, for a call that is not closed.
        end: position behind it, or of the end of the text.
        closed: it is complete, so that the turn ends here whatever may follow.
        foreign: it is no call but code of another language, in which only answers are looked for.
    """

    code: str | None
    fault: str | None
    end: int
    closed: bool = True
    foreign: bool = False


class Kind(Enum):
    """Kind of a piece of a turn. `MENTION` is an opening tag of a call that opens none."""

    CALL = auto()
    OPEN_CALL = auto()
    MENTION = auto()
    CALL_END = auto()
    ANSWER_START = auto()
    ANSWER = auto()
    ANSWER_END = auto()


@dataclass(frozen=True)
class Piece:
    """Piece of a turn outside of thoughts and strings of code; `end` is the position behind it."""

    kind: Kind
    end: int
    turn: ParsedTurn = ParsedTurn()


class TurnFormat(ABC):
    """Format of calls.

    `call_end` closes a call: generation stops there, as it does at the end of an answer, so the model can never write
    its own feedback. `end` says whether the turn is over then, or generation goes on.
    """

    name: ClassVar[str]
    call_start: ClassVar[str]
    call_end: ClassVar[str]
    opening: ClassVar[str]
    """Regular expression of what may open a call."""

    @property
    def call_prefix(self) -> str:
        """Returns text with which every call begins: a turn without it has no call."""
        return self.call_start

    @property
    def stop_strings(self) -> tuple[str, ...]:
        return (self.call_end, ANSWER_END)

    @abstractmethod
    def read_call(self, text: str, opening: re.Match[str], in_thought: bool) -> Call | None:
        """Returns the call that begins with a match of `opening`; None where the tag is only named."""

    @abstractmethod
    def render_call(self, code: str) -> str:
        """Returns the call as the model is taught to write it; `parse` reads it back unchanged.

        Raises `ValueError` for code that cannot be written.
        """

    def parse(self, text: str) -> ParsedTurn:
        """Reads one assistant turn, in time linear in its length.

        A turn with a call is a call, even where an answer stands beside it: the answer was written before the feedback
        and is ignored. Of several answers the last counts. What stands in an open call or in a thought is no answer.
        """
        pieces = list(self.pieces(text))
        calls = [piece.turn for piece in pieces if piece.turn.code is not None or piece.turn.fault is not None]
        if calls:
            return self.one_call(calls)
        answers = [piece.turn for piece in pieces if piece.kind is Kind.ANSWER]
        return answers[-1] if answers else ParsedTurn()

    def one_call(self, calls: list[ParsedTurn]) -> ParsedTurn:
        """Returns the call of a turn that has at least one; generation stops behind the first."""
        return calls[0]

    def call_opening(self, text: str) -> tuple[int, int] | None:
        """Returns the half-open span of what opens the call of a turn; None for a turn without a call."""
        parsed = self.parse(text)
        if parsed.code is None and parsed.fault is None:
            return None
        found = self._tags.match(text, parsed.start)
        return None if found is None else found.span()

    def end(self, text: str) -> int | None:
        """Returns the position behind the first complete call or answer, the turn's end; None where there is none.

        It never changes by what is written behind it. A stop string within an open thought, a string of the code or a
        block of another language ends nothing; a closing tag that closes nothing does.
        """
        over = (Kind.CALL, Kind.CALL_END, Kind.ANSWER, Kind.ANSWER_END)
        return next((piece.end for piece in self.pieces(text) if piece.kind in over), None)

    def count_calls(self, text: str) -> tuple[int, int]:
        """Returns the number of calls that a turn begins, and of those that it ends."""
        found = self._kinds(text)
        return found[Kind.CALL] + found[Kind.OPEN_CALL] + found[Kind.MENTION], found[Kind.CALL] + found[Kind.CALL_END]

    def count_answers(self, text: str) -> tuple[int, int]:
        """Returns the number of answers that a turn begins, and of those that it ends."""
        found = self._kinds(text)
        return found[Kind.ANSWER_START], found[Kind.ANSWER] + found[Kind.ANSWER_END]

    def beside_calls(self, text: str) -> str:
        """Returns the text before, between and behind the calls of a turn; a call that cannot be read stays in it."""
        calls = [(piece.turn.start, piece.end) for piece in self.pieces(text) if piece.turn.code is not None]
        starts, ends = [0, *(end for _, end in calls)], [*(start for start, _ in calls), len(text)]
        parts = (text[start:end].strip() for start, end in zip(starts, ends, strict=True))
        return "\n".join(part for part in parts if part)

    def pieces(self, text: str) -> Iterator[Piece]:
        """Yields the pieces of a turn, in order."""
        # `answer`: position behind an open answer tag, -1 without one; `foreign`: end of a block of another language,
        # in which nothing opens a call. A call is skipped whole: tags in its code are code.
        position, thought, answer, foreign = 0, False, -1, 0
        while found := self._tags.search(text, position):
            position, tag = found.end(), found.group()
            if tag in (THINK_START, THINK_END):
                thought, answer = tag == THINK_START, -1
            elif tag == ANSWER_START:
                if not thought:
                    answer = position
                    yield Piece(Kind.ANSWER_START, position)
            elif tag == ANSWER_END:
                if not thought:
                    yield _answer(text, answer, found)
                    answer = -1
            elif tag == self.call_end.strip("\n") and found["opening"] is None:
                if not thought:
                    yield Piece(Kind.CALL_END, position)
            elif position <= foreign:
                continue
            elif (call := self.read_call(text, found, thought)) is not None:
                if call.foreign:
                    foreign = call.end
                    continue
                position = call.end
                parsed = ParsedTurn(code=call.code, fault=call.fault, start=found.start())
                yield Piece(Kind.CALL if call.closed else Kind.OPEN_CALL, position, parsed)
            elif not thought:
                yield Piece(Kind.MENTION, position)

    @functools.cached_property
    def _tags(self) -> re.Pattern[str]:
        closing = () if self.call_end.startswith("`") else (self.call_end,)
        plain = "|".join(map(re.escape, (*TURN_TAGS, *closing)))
        return re.compile(rf"(?P<opening>{self.opening})|{plain}", re.MULTILINE)

    def _kinds(self, text: str) -> Counter[Kind]:
        return Counter(piece.kind for piece in self.pieces(text))


def _answer(text: str, start: int, closing: re.Match[str]) -> Piece:
    """Returns the answer that ends with this tag, if it was begun."""
    if start < 0:
        return Piece(Kind.ANSWER_END, closing.end())
    answer = ParsedTurn(answer=text[start : closing.start()].strip(), start=start - len(ANSWER_START))
    return Piece(Kind.ANSWER, closing.end(), answer)


def render_answer(answer: str) -> str:
    return f"{ANSWER_START}{answer}{ANSWER_END}"


def render_think(thought: str) -> str:
    return f"{THINK_START}{thought}{THINK_END}"
