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
from codedance_verl.formats import get_format
from codedance_verl.formats.base import THINK_END, THINK_START
from codedance_verl.types import Execution, ExecutionStatus

_FORMAT = get_format("code")
_OPEN, _CLOSE = "<interpreter>", "</interpreter>"
_ASKED = re.compile(r"\A\s{0,64}\*user question:\*\s{0,64}", re.IGNORECASE)
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
    return [*turns, {"role": "assistant", "content": _with_thought(text)}]


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
    question = _ASKED.sub("", user["content"]).strip()
    return _demonstration([{"role": "user", "content": question}, *turns_of(assistant["content"])])


def _two(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    said = [message for message in messages if message["role"] != "system"]
    if [message["role"] for message in said] != ["user", "assistant"]:
        raise BadRow(f"messages has the roles {', '.join(message['role'] for message in said)}, not user, assistant")
    return said


def _with_tool_calls(values: Values) -> Mapping[str, Any]:
    return _demonstration([turn for message in values["messages"] for turn in _turns(message)])


def _turns(message: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    role, content = message["role"], message.get("content") or ""
    if role == "tool":
        yield _feedback(content)
    elif role == "assistant":
        yield {"role": role, "content": _with_thought(content + _calls(message.get("tool_calls") or []))}
    elif role != "system":  # which describes another tool
        yield {"role": role, "content": _ASKED.sub("", content).strip()}


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
