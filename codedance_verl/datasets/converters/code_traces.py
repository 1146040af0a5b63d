"""ReTool: text-only demonstrations of code in two forms, turned into turns of this environment.

The first form has a whole trajectory in one assistant message, the interpreter's output between tags; the second has
messages with tool calls. Layouts are those of the cards (`JoeYing/ReTool-SFT`, `swordfaith/ReTool-SFT-multi-turn`) and
of verl's recipe; no row of the files was read here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from codedance_verl.data.fields import BadRow
from codedance_verl.data.rows import Kind
from codedance_verl.datasets.column_types import ANYTHING, MESSAGES
from codedance_verl.datasets.converter import Converter, Field, Form, Values
from codedance_verl.environment.observations import observation_text
from codedance_verl.formats import get_format, render_answer
from codedance_verl.formats.base import THINK_END, THINK_START
from codedance_verl.types import Execution, ExecutionStatus

_FORMAT = get_format("code")
_OPEN, _CLOSE = "<interpreter>", "</interpreter>"
_ASKED = re.compile(r"\*user question:\*", re.IGNORECASE)
_BOX = "\\boxed{"
_CODE_KEY = "code"


def turns_of(text: str) -> list[dict[str, str]]:
    """Turns of a trajectory in one text: what stands between `<interpreter>` tags becomes the feedback.

    Raises BadRow: a tag is not closed, or no call that the format `code` reads stands before the output.
    """
    turns: list[dict[str, str]] = []
    while (start := text.find(_OPEN)) >= 0:
        end = text.find(_CLOSE, start)
        if end < 0:
            raise BadRow(f"messages has {_OPEN} without {_CLOSE}")
        turns += [_called(text[:start]), _feedback(text[start + len(_OPEN) : end])]
        text = text[end + len(_CLOSE) :]
    return [*turns, {"role": "assistant", "content": answered(text)}]


def question_in(text: str) -> str:
    """Question of a user message: what stands behind the last `*user question:*`, before which a tool is described.

    Raises BadRow where the interpreter is still named in what is left.
    """
    question = _ASKED.split(text)[-1].strip()
    if _OPEN in question or _CLOSE in question:
        raise BadRow(f"its question describes {_OPEN} in words that are not known; cut them out, or drop the row")
    return question


def answered(text: str) -> str:
    """Last turn with its answer block; where there is none, the last `\\boxed{...}` becomes one.

    Raises BadRow where there is neither.
    """
    if _FORMAT.parse(text).answer is None:
        start = text.rfind(_BOX)
        end = _closing_brace(text, start + len(_BOX)) if start >= 0 else -1
        if end < 0:
            raise BadRow(f"messages ends with a reply that has neither an answer block nor {_BOX}...}}")
        text = f"{text[:start].strip()}\n{render_answer(text[start : end + 1])}"
    return _with_thought(text)


def _closing_brace(text: str, start: int) -> int:
    """Position of the brace that closes the one before `start`; -1 where none does."""
    depth = 1
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if not depth:
            return place
    return -1


def _called(text: str) -> dict[str, str]:
    turn = _with_thought(text)
    if _FORMAT.parse(turn).code is None:
        raise BadRow("messages has an output of the interpreter without a fenced Python block in <code> before it")
    return {"role": "assistant", "content": turn}


def _with_thought(text: str) -> str:
    """Turn whose text before the call or the answer is a thought."""
    text = text.strip()
    parsed = _FORMAT.parse(text)
    before = text[: parsed.start].strip() if parsed.code is not None or parsed.answer is not None else ""
    if not before or THINK_START in before:
        return text
    return f"{THINK_START}{before}{THINK_END}\n{text[parsed.start :]}"


def _feedback(stdout: str) -> dict[str, str]:
    # an error of the published interpreter is text of its output, which is what the model learnt from
    return {"role": "user", "content": observation_text(Execution(ExecutionStatus.OK, stdout.strip("\n")))}


def _in_one_message(values: Values) -> Mapping[str, Any]:
    user, assistant = _two(values["messages"])
    question = {"role": "user", "content": question_in(user["content"])}
    return _demonstration([question, *turns_of(assistant["content"])])


def _two(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    said = [message for message in messages if message["role"] != "system"]
    if [message["role"] for message in said] != ["user", "assistant"]:
        raise BadRow(f"messages has the roles {', '.join(message['role'] for message in said)}, not user, assistant")
    return said


def _with_tool_calls(values: Values) -> Mapping[str, Any]:
    turns = [turn for message in values["messages"] for turn in _turns(message)]
    if turns and turns[-1]["role"] == "assistant":
        turns[-1] = {"role": "assistant", "content": answered(turns[-1]["content"])}
    return _demonstration(turns)


def _turns(message: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    role, content = message["role"], message.get("content") or ""
    if role == "tool":
        yield _feedback(content)
    elif role == "assistant":
        yield {"role": role, "content": _with_thought(content + _calls(message.get("tool_calls") or []))}
    elif role != "system":  # which describes another tool
        yield {"role": role, "content": question_in(content)}


def _calls(calls: list[Mapping[str, Any]]) -> str:
    """Text of a message's call; empty for none. Raises BadRow for several, and for one that holds no code."""
    if not calls:
        return ""
    if len(calls) > 1:
        raise BadRow(f"messages has {len(calls)} calls in one turn; a turn has one here")
    arguments = calls[0]["function"]["arguments"]
    found = json.loads(arguments) if isinstance(arguments, str) else arguments
    code = found.get(_CODE_KEY) if isinstance(found, Mapping) else None
    if not isinstance(code, str):
        raise BadRow(f"messages has a call whose arguments have no text {_CODE_KEY}")
    return "\n" + _FORMAT.render_call(code)


def _demonstration(messages: list[dict[str, str]]) -> Mapping[str, Any]:
    return {"messages": messages, "images": []}


RETOOL = Converter(
    name="retool",
    title="JoeYing/ReTool-SFT, swordfaith/ReTool-SFT-multi-turn",
    kind=Kind.DEMONSTRATIONS,
    forms=(
        Form(
            "a trajectory in one message",
            (Field("messages", MESSAGES, "messages"),),
            _in_one_message,
            never=("images", "image", "tools", "reward_model"),
            taken_for_another=("messages",),
        ),
        Form(
            "messages with tool calls",
            (Field("messages", MESSAGES, "messages"), Field("tools", ANYTHING, "tools")),
            _with_tool_calls,
            never=("images", "image", "reward_model"),
        ),
    ),
    notes=("it has no images",),
)
