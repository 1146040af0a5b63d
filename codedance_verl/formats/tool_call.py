"""Older format: a function call in JSON."""

from __future__ import annotations

import json
import re
from typing import Any, ClassVar

from codedance_verl.formats.base import TURN_TAGS, Call, TurnFormat
from codedance_verl.formats.fenced import LINE, is_python, read_block, render_fence

FUNCTION = "execute_python_code"

_START, _END = "<tool_call>", "</tool_call>"
_CLOSING = re.compile(_END)
_FIRST = re.compile("|".join(map(re.escape, (_START, _END, *TURN_TAGS))))
_OBJECT = re.compile(r"\s*(?:```[a-z]*\s*)?\{")
_SURPLUS = re.compile(r"[\s}`]*")
_LINE = re.compile(LINE, re.MULTILINE)


class ToolCall(TurnFormat):
    """`<tool_call>{"name": "execute_python_code", "arguments": {"code": ...}}</tool_call>`; the first of a turn.

    The call ends at the first closing tag; in code that is written `\\u003c/tool_call>`. An opening tag without a brace
    behind it is only a name in a thought, or where another one follows.
    """

    name: ClassVar[str] = "tool_call"
    call_start: ClassVar[str] = _START
    call_end: ClassVar[str] = _END
    opening: ClassVar[str] = _START

    def read_call(self, text: str, opening: re.Match[str], in_thought: bool) -> Call | None:
        begun = _OBJECT.match(text, opening.end()) is not None
        if in_thought and not begun:
            return None
        closing = (_CLOSING if begun else _FIRST).search(text, opening.end())
        if not begun and (closing is None or closing.group() != _END):
            return None
        if closing is None:
            return Call(None, None, len(text), closed=False)
        code, fault = _read(text[opening.end() : closing.start()])
        return Call(code, fault, closing.end())

    def render_call(self, code: str) -> str:
        written = code if _unfenced(code) == code else render_fence(code)
        call = json.dumps({"name": FUNCTION, "arguments": {"code": written}}, ensure_ascii=False)
        return f"{_START}\n{call.replace(_END, _END.replace('<', chr(92) + 'u003c'))}\n{_END}"


def _read(text: str) -> tuple[str | None, str | None]:
    """Returns the code of a call or, where there is none, the defect of the call."""
    try:
        call = _decoded(text)
    except (ValueError, RecursionError) as error:
        return None, f'the call is no valid JSON: {error}; in a string a quote is written \\"'[:300]
    if not isinstance(call, dict) or call.get("name") != FUNCTION:
        return None, f"the only function is {FUNCTION}"
    arguments = call.get("arguments")
    if isinstance(arguments, str):  # as the API of OpenAI has them
        try:
            arguments = _decoded(arguments)
        except (ValueError, RecursionError):
            arguments = None
    code = arguments.get("code") if isinstance(arguments, dict) else None
    if not isinstance(code, str):
        return None, f'{FUNCTION} takes {{"code": "..."}}'
    return _unfenced(code), None


def _decoded(text: str) -> Any:
    """Returns the JSON value of a text. Line breaks in strings, a fence around it and braces too many are no fault."""
    body = text.strip()
    if body.startswith("```"):
        body = body.lstrip("`").lstrip("abcdefghijklmnopqrstuvwxyz").lstrip()
    value, end = json.JSONDecoder(strict=False).raw_decode(body)
    rest = _SURPLUS.match(body, end)
    if rest is None or rest.end() != len(body):
        raise ValueError(f"Extra data: char {end}")
    return value


def _unfenced(code: str) -> str:
    """Returns the code without a fence that is all around it."""
    inner = code.strip()
    opening = _LINE.match(inner)
    if opening is None or not is_python(opening["info"]):
        return code
    block = read_block(inner, opening)
    return code if block is None or block.code is None or block.end < len(inner) else block.code
