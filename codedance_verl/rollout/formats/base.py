"""What all formats share: thoughts, answers, and how a turn is read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

ANSWER_START, ANSWER_END = "<answer>", "</answer>"
_FENCE = "```"
_OPENINGS = (_FENCE, _FENCE + "python", _FENCE + "py")


@dataclass(frozen=True)
class ParsedTurn:
    """What a turn asks for; at most one of the three is set.

    `code` is the source to run, `answer` the stripped text of the answer block, `fault` says what is wrong with a call
    that cannot be read: the model is told so, and nothing is run.
    """

    code: str | None = None
    answer: str | None = None
    fault: str | None = None


class TurnFormat(ABC):
    """One way to write a call.

    `call_end` closes a call: generation stops there, as it does at the end of an answer, so the model can never write
    its own feedback.
    """

    name: ClassVar[str]
    call_start: ClassVar[str]
    call_end: ClassVar[str]

    @property
    def stop_strings(self) -> tuple[str, ...]:
        return (self.call_end, ANSWER_END)

    @abstractmethod
    def parse_call(self, text: str) -> ParsedTurn | None:
        """The call in a turn, or what is wrong with it; None where there is no closed call."""

    @abstractmethod
    def render_call(self, code: str) -> str:
        """The call as the model is taught to write it; `parse` reads it back unchanged."""

    @abstractmethod
    def count_calls(self, text: str) -> tuple[int, int]:
        """How many calls a turn begins and how many it ends."""

    def parse(self, text: str) -> ParsedTurn:
        """Read one assistant turn.

        A turn with a call is a call, even where an answer stands beside it: the answer was written before the feedback
        and is ignored. Of several answers the last counts. An unclosed tag counts as absent.
        """
        if call := self.parse_call(text):
            return call
        end = text.rfind(ANSWER_END)
        start = text.rfind(ANSWER_START, 0, max(end, 0))
        return ParsedTurn(answer=text[start + len(ANSWER_START) : end].strip() if start >= 0 else None)


def between(text: str, start: str, end: str) -> str | None:
    """What stands between the first `start` and the next `end` after it; None where one of them is missing."""
    _, found, rest = text.partition(start)
    inner, closed, _ = rest.partition(end)
    return inner if found and closed else None


def fenced_code(text: str) -> str | None:
    """The source of all closed fences in a text, in order, as one cell; None where there is none."""
    blocks: list[str] = []
    block: list[str] | None = None
    for line in text.split("\n"):
        mark = line.strip(" \t\r")
        if block is None:
            block = [] if mark in _OPENINGS else None
        elif mark == _FENCE:
            blocks.append("\n".join(block))
            block = None
        else:
            block.append(line)
    return "\n".join(blocks) if blocks else None


def render_fence(code: str) -> str:
    """The code in a fence. Raises `ValueError` for code that would not be read back: one with a fence of its own."""
    fenced = f"{_FENCE}python\n{code}\n{_FENCE}"
    if fenced_code(fenced) != code:
        raise ValueError(f"code with a line {_FENCE} cannot be fenced")
    return fenced


def render_answer(answer: str) -> str:
    return f"<answer>{answer}{ANSWER_END}"


def render_think(thought: str) -> str:
    return f"<think>{thought}</think>"
