"""How a model writes code and answers: one file per format, the only places that know its tags."""

from __future__ import annotations

from codedance_verl.formats.base import (
    ANSWER_END,
    ANSWER_START,
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
    "ParsedTurn",
    "TurnFormat",
    "get_format",
    "render_answer",
    "render_think",
]

FORMATS: dict[str, TurnFormat] = {kind.name: kind for kind in (CodeBlock(), ToolCall(), Fence())}

DEFAULT_FORMAT = CodeBlock.name
"""Of logs that name none."""


def get_format(name: str) -> TurnFormat:
    """The format of that name. Raises `KeyError`; names that users give are checked by `EnvironmentConfig`."""
    return FORMATS[name]
