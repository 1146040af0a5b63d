"""Form of a trajectory: its structure alone, whether or not code ran and the answer is right."""

from __future__ import annotations

import re

from codedance_verl.formats import TurnFormat, get_format
from codedance_verl.reward.config import FormatRule
from codedance_verl.types import Trajectory

WELL_FORMED = 0.0
MALFORMED = -1.0

_THINK_TAG = re.compile(r"</?think>")
_FEEDBACK_TAG = re.compile(r"</?tool_response>")


def format_reward(trajectory: Trajectory, max_answer_chars: int, rule: FormatRule = FormatRule.STRICT) -> float:
    """0.0 for a trajectory that is well-formed by the rule, -1.0 for any other."""
    find = malformation if rule is FormatRule.STRICT else tag_malformation
    return MALFORMED if find(trajectory, max_answer_chars) else WELL_FORMED


def malformation(trajectory: Trajectory, max_answer_chars: int) -> str | None:
    """Returns the fault in the form of a trajectory, in a few words; None when it is well-formed.

    Well-formed: thoughts are opened and closed in pairs, every turn but the last is one call, the last is one
    answer of fewer than `max_answer_chars` characters, and the model wrote no feedback of its own. What a thought names
    or a string of the code holds is neither call nor answer.
    """
    if not trajectory.turns:
        return "no turn"
    for turn in trajectory.turns:
        if not _thoughts_paired(turn.text):
            return "think tags do not pair"
        if _FEEDBACK_TAG.search(turn.text):
            return "feedback written by the model"
    written = get_format(trajectory.format)
    for turn in trajectory.turns[:-1]:
        if not _is_call(turn.text, written):
            return "a turn before the last is not one call"
    return _last_turn_malformation(trajectory.turns[-1].text, written, max_answer_chars)


def tag_malformation(trajectory: Trajectory, max_answer_chars: int) -> str | None:
    """Returns the fault that the published code finds; it counts tags over the text of all turns."""
    text = "\n".join(turn.text for turn in trajectory.turns)
    if text.count("<think>") != text.count("</think>"):
        return "think tags do not pair"
    if text.count("<answer>") != 1 or text.count("</answer>") != 1:
        return "not exactly one answer"
    answer = text.partition("<answer>")[2].partition("</answer>")[0].strip()
    return f"an answer of {len(answer)} characters" if len(answer) >= max_answer_chars else None


def _thoughts_paired(text: str) -> bool:
    tags = _THINK_TAG.findall(text)
    return tags == ["<think>", "</think>"] * (len(tags) // 2)


def _is_call(text: str, written: TurnFormat) -> bool:
    return (
        written.parse(text).code is not None
        and written.count_calls(text) == (1, 1)
        and written.count_answers(text) == (0, 0)
    )


def _last_turn_malformation(text: str, written: TurnFormat, max_answer_chars: int) -> str | None:
    answer = written.parse(text).answer
    if answer is None or written.count_answers(text) != (1, 1):
        return "the last turn is not exactly one answer"
    if written.count_calls(text) != (0, 0):
        return "code beside the answer"
    if len(answer) >= max_answer_chars:
        return f"an answer of {len(answer)} characters"
    return None
