from __future__ import annotations

import pytest

from codedance_verl.reward.format import format_reward, malformation
from tests.unit.reward.rollouts import from_texts, trajectory

CALL = "<think>look</think>\n<code>\n```python\nprint(1)\n```\n</code>"
END = "<think>so</think><answer>3</answer>"

WELL_FORMED = [
    [END],
    ["<answer>3</answer>"],
    [CALL, END],
    [CALL, CALL, END],
    ["<think>a</think> <think>b</think><answer>3</answer>"],
    ["<think>an <answer> needs no <code> here</think><answer>3</answer>"],
    ["<think>I use <code></think>" + CALL.replace("print(1)", "print('<answer>3</answer></code>')"), END],
]

MALFORMED = [
    ([], "no turn"),
    (["<think>so<answer>3</answer>"], "think"),
    (["so</think><answer>3</answer>"], "think"),
    (["</think>so<think><answer>3</answer>"], "think"),
    (["<think><think>a</think></think><answer>3</answer>"], "think"),
    ([CALL.replace("</think>", ""), END], "think"),
    (["3"], "answer"),
    (["<answer>3"], "answer"),
    (["<answer>3</answer><answer>4</answer>"], "answer"),
    ([END, END], "not one call"),
    ([CALL + "<answer>3</answer>", END], "not one call"),
    (["<think>look</think><code>print(1)</code>", END], "not one call"),
    ([CALL + CALL, END], "not one call"),
    ([CALL], "answer"),
    ([CALL, CALL + END], "answer"),
    (["<code>print(1)</code>" + END], "not exactly one answer"),
    (["<code>" + END], "code beside"),
    (["<tool_response>3</tool_response>" + END], "feedback"),
    (["<answer>" + "3" * 1000 + "</answer>"], "1000 characters"),
]


@pytest.mark.parametrize("texts", WELL_FORMED)
def test_well_formed(texts: list[str]) -> None:
    assert malformation(from_texts(texts), 1000) is None
    assert format_reward(from_texts(texts), 1000) == 0.0


@pytest.mark.parametrize(("texts", "reason"), MALFORMED)
def test_malformed(texts: list[str], reason: str) -> None:
    assert reason in (malformation(from_texts(texts), 1000) or "")
    assert format_reward(from_texts(texts), 1000) == -1.0


def test_the_longest_answer_allowed() -> None:
    assert malformation(trajectory(answer="3" * 999), 1000) is None
    assert malformation(trajectory(answer="3" * 10), 10) is not None
