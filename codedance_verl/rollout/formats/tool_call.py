"""The older format: a function call in JSON."""

from __future__ import annotations

import json
from typing import ClassVar

from codedance_verl.rollout.formats.base import ParsedTurn, TurnFormat, between

FUNCTION = "execute_python_code"


class ToolCall(TurnFormat):
    """`<tool_call>{"name": "execute_python_code", "arguments": {"code": ...}}</tool_call>`; the first of a turn."""

    name: ClassVar[str] = "tool_call"
    call_start: ClassVar[str] = "<tool_call>"
    call_end: ClassVar[str] = "</tool_call>"

    def parse_call(self, text: str) -> ParsedTurn | None:
        call = between(text, self.call_start, self.call_end)
        return None if call is None else _read(call)

    def render_call(self, code: str) -> str:
        call = json.dumps({"name": FUNCTION, "arguments": {"code": code}}, ensure_ascii=False)
        return f"{self.call_start}\n{call}\n{self.call_end}"

    def count_calls(self, text: str) -> tuple[int, int]:
        return text.count(self.call_start), text.count(self.call_end)


def _read(text: str) -> ParsedTurn:
    try:
        call = json.loads(text, strict=False)  # models write line breaks into strings as they are
    except (ValueError, RecursionError) as error:
        return ParsedTurn(fault=f"the call is no valid JSON: {error}"[:300])
    if not isinstance(call, dict) or call.get("name") != FUNCTION:
        return ParsedTurn(fault=f"the only function is {FUNCTION}")
    arguments = call.get("arguments")
    code = arguments.get("code") if isinstance(arguments, dict) else None
    if not isinstance(code, str):
        return ParsedTurn(fault=f'{FUNCTION} takes {{"code": "..."}}')
    return ParsedTurn(code=code)
