"""Formats of calls and answers: one file per format, the only places that know its tags.

A format of one's own is one file with a subclass of `TurnFormat`, and its entry in `FORMATS`
(`docs/environment.md#adding-a-format`).
"""

from __future__ import annotations

from codedance_verl.formats.base import (
    ANSWER_END,
    ANSWER_START,
    TURN_TAGS,
    ParsedTurn,
    TurnFormat,
    render_answer,
    render_think,
)
from codedance_verl.formats.code_block import CodeBlock
from codedance_verl.formats.fence import Fence
from codedance_verl.formats.tool_call import ToolCall

__all__ = [
    "ANSWER_END",
    "ANSWER_START",
    "DEFAULT_FORMAT",
    "FORMATS",
    "TURN_TAGS",
    "ParsedTurn",
    "TurnFormat",
    "get_format",
    "render_answer",
    "render_think",
]

FORMATS: dict[str, TurnFormat] = {kind.name: kind for kind in (CodeBlock(), ToolCall(), Fence())}

DEFAULT_FORMAT = CodeBlock.name
"""Format of logs that name none."""


def get_format(name: str) -> TurnFormat:
    """Returns the format of that name. Raises `KeyError`; `EnvironmentConfig` checks names that users give."""
    return FORMATS[name]
