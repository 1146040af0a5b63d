"""A plain fenced Python block, as models write it that were taught no tags."""

from __future__ import annotations

import re
from typing import ClassVar

from codedance_verl.rollout.formats.base import ParsedTurn, TurnFormat, fenced_code, render_fence

_OPENING = re.compile(r"^[ \t]*```(?:python|py)[ \t]*$", re.MULTILINE)
_CLOSING = re.compile(r"^[ \t]*```[ \t]*$", re.MULTILINE)


class Fence(TurnFormat):
    """A fence of language `python`, `py` or none. Several fences are one cell."""

    name: ClassVar[str] = "fence"
    call_start: ClassVar[str] = "```python"
    call_end: ClassVar[str] = "\n```\n"

    def parse_call(self, text: str) -> ParsedTurn | None:
        code = fenced_code(text)
        return None if code is None else ParsedTurn(code=code)

    def render_call(self, code: str) -> str:
        return render_fence(code) + "\n"

    def count_calls(self, text: str) -> tuple[int, int]:
        return len(_OPENING.findall(text)), len(_CLOSING.findall(text))
