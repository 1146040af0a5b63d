"""The default: a fenced Python block inside `<code>` tags."""

from __future__ import annotations

from typing import ClassVar

from codedance_verl.rollout.formats.base import ParsedTurn, TurnFormat, between, fenced_code, render_fence


class CodeBlock(TurnFormat):
    """`<code>`, a fence, `</code>`. Several fences in one block are one cell; blocks after the first are ignored."""

    name: ClassVar[str] = "code"
    call_start: ClassVar[str] = "<code>"
    call_end: ClassVar[str] = "</code>"

    def parse_call(self, text: str) -> ParsedTurn | None:
        call = between(text, self.call_start, self.call_end)
        if call is None:
            return None
        code = fenced_code(call)
        if code is None:
            return ParsedTurn(fault="there is no fenced Python block between <code> and </code>")
        return ParsedTurn(code=code)

    def render_call(self, code: str) -> str:
        return f"{self.call_start}\n{render_fence(code)}\n{self.call_end}"

    def count_calls(self, text: str) -> tuple[int, int]:
        return text.count(self.call_start), text.count(self.call_end)
