"""Reads an assistant turn: thought, code, answer. The only place that knows the tags the model writes."""

from __future__ import annotations

import re
from dataclasses import dataclass

CODE_END = "</code>"
ANSWER_END = "</answer>"
STOP_STRINGS = (CODE_END, ANSWER_END)
"""Generation stops here, so the model can never write its own feedback."""

_CODE = re.compile(r"<code>\s*```(?:python|py)?[ \t]*\n(.*?)\n?```\s*</code>", re.DOTALL)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


@dataclass(frozen=True)
class ParsedTurn:
    """`code` is the source of the turn's code block, `answer` the stripped text of its answer block, if any."""

    code: str | None
    answer: str | None


def parse_turn(text: str) -> ParsedTurn:
    """Find the first code block and the last answer of one assistant turn.

    A turn with a code block is a call, even where an answer stands beside it: the answer was written before the
    feedback and is ignored. An unclosed tag counts as absent.
    """
    if code := _CODE.search(text):
        return ParsedTurn(code=code.group(1), answer=None)
    answers = _ANSWER.findall(text)
    return ParsedTurn(code=None, answer=answers[-1].strip() if answers else None)


def render_code(code: str) -> str:
    """The code block as the model is taught to write it; `parse_turn` reads it back unchanged."""
    return f"<code>\n```python\n{code}\n```\n{CODE_END}"


def render_answer(answer: str) -> str:
    return f"<answer>{answer}{ANSWER_END}"


def render_think(thought: str) -> str:
    return f"<think>{thought}</think>"
