"""Format of a plain fenced Python block, as models write it that were taught no tags."""

from __future__ import annotations

import re
from typing import ClassVar

from codedance_verl.formats.base import Call, ParsedTurn, TurnFormat
from codedance_verl.formats.fenced import LINE, SHORTEST, is_python, read_block, render_fence


class Fence(TurnFormat):
    """Call as a fence of Python or of no language. Several fences are one cell; those of other languages are text."""

    name: ClassVar[str] = "fence"
    call_start: ClassVar[str] = "```python"
    call_end: ClassVar[str] = "```\n"
    opening: ClassVar[str] = rf"^{LINE}"

    @property
    def call_prefix(self) -> str:
        return "`" * SHORTEST

    def read_call(self, text: str, opening: re.Match[str], in_thought: bool) -> Call | None:
        block = read_block(text, opening)
        if not is_python(opening["info"]):
            return Call(None, None, len(text) if block is None else block.end, closed=False, foreign=True)
        if block is None:
            return Call(None, None, len(text), closed=False)
        return Call(block.code, None, block.end, closed=block.closed and text[block.end - 1] == "\n")

    def one_call(self, calls: list[ParsedTurn]) -> ParsedTurn:
        return ParsedTurn(code="\n".join(call.code or "" for call in calls), start=calls[0].start)

    def render_call(self, code: str) -> str:
        return render_fence(code) + "\n"
