"""Default format: a fenced Python block inside `<code>` tags."""

from __future__ import annotations

import re
from typing import ClassVar

from codedance_verl.formats.base import TURN_TAGS, Call, TurnFormat
from codedance_verl.formats.fenced import LINE, read_block, render_fence

_START, _END = "<code>", "</code>"
_FAULT = f"there is no fenced Python block between {_START} and {_END}"
_AT_ONCE = re.compile(rf"(?:[ \t\r]*\n)*{LINE}", re.MULTILINE)
_FENCE = rf"(?:^|(?<={_START})){LINE}"
_NAMED = re.compile("|".join(map(re.escape, (_START, *TURN_TAGS))))
_FIRST = re.compile(rf"{_FENCE}|{_END}|{_NAMED.pattern}", re.MULTILINE)
_NEXT = re.compile(rf"{_FENCE}|{_END}", re.MULTILINE)


class CodeBlock(TurnFormat):
    """`<code>`, a fence, `</code>`. Several fences in one block are one cell; blocks after the first are ignored.

    The call ends at the first `</code>` that is in no string or comment of the code. In a thought the opening tag is
    only a name unless a fence follows it at once.
    """

    name: ClassVar[str] = "code"
    call_start: ClassVar[str] = _START
    call_end: ClassVar[str] = _END
    opening: ClassVar[str] = _START

    def read_call(self, text: str, opening: re.Match[str], in_thought: bool) -> Call | None:
        found = _FIRST.search(text, opening.end())
        if found is None or _NAMED.fullmatch(found.group()):
            return None
        if in_thought and _AT_ONCE.match(text, opening.end()) is None:
            return None
        codes: list[str] = []
        while found is not None and found.group() != _END:
            block = read_block(text, found, _END)
            if block is None:
                unclosed = text.find(_END, found.end()) >= 0
                return Call(None, _FAULT if unclosed else None, len(text), closed=False)
            if not block.closed:
                return Call(None, _FAULT, block.end + len(_END))
            codes += [] if block.code is None else [block.code]
            found = _NEXT.search(text, block.end)
        if found is None:
            return Call(None, None, len(text), closed=False)
        return Call("\n".join(codes) if codes else None, None if codes else _FAULT, found.end())

    def render_call(self, code: str) -> str:
        call = f"{_START}\n{render_fence(code)}\n{_END}"
        if self.parse(call).code != code or self.end(call) != len(call):
            raise ValueError(f"code with {_END} outside of its strings and comments cannot be written")
        return call
