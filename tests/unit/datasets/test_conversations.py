"""Conversations of a question and its reply."""

from __future__ import annotations

from typing import Any

import pytest

from codedance_verl.data.fields import BadRow
from codedance_verl.datasets.converters.conversations import final_answer, question_and_answer
from tests.unit.datasets import published


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("B", "B"),
        ("Answer: 3 is wrong.\nSo x is 4.\nAnswer: 4", "4"),
        ("所以∠2等于58°。答案\uff1aB。", "B"),
        ("The answer is hard to see here, but AB and CD are parallel, so that both angles must be equal to 30°.", None),
        ("It is so.\nHence 30°", None),
        ("Answer:", None),
        ("", None),
    ],
)
def test_a_reply_without_final_answer_is_a_bad_row(reply: str, answer: str | None) -> None:
    if answer is not None:
        assert final_answer(reply) == answer
        return
    with pytest.raises(BadRow, match="no final answer"):
        final_answer(reply)


@pytest.mark.parametrize(
    ("turns", "fault"),
    [
        (published.exchange("a?", "1") * 2, "has 4 messages"),
        ("a?", "no list of messages"),
        (published.exchange("a?", "1")[::-1], "from human"),
        ([{"from": "human", "value": None}, {"from": "gpt", "value": "1"}], "from human and a text"),
        (["a?", "1"], r"conversations\[0\] is no message"),
    ],
)
def test_a_conversation_of_another_form_is_a_bad_row(turns: Any, fault: str) -> None:
    with pytest.raises(BadRow, match=fault):
        question_and_answer(turns)
