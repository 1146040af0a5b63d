"""No reply of a model ends an evaluation, and none that long reads as an answer."""

from __future__ import annotations

import pytest

from codedance_verl.tasks.item import Item, JudgeRequest, Score
from codedance_verl.tasks.registry import task_of

COLOURS = ("red", "blue", "green", "black")
CHOICE = {"question_type": "multi_choice", "answer_type": "text", "answer": "blue", "query": "What?"}
NUMBER = {"question_type": "free_form", "answer_type": "float", "answer": "1.2", "precision": 1, "query": "What?"}
ITEMS = {
    "countbench": Item("0", "How many?", (), "4"),
    "pixmocount": Item("0", "How many?", (), "4"),
    "vstar": Item("0", "What?\n(A) red\n(B) blue\n(C) green\n(D) black", (), "B", choices=COLOURS),
    "hrbench_4k": Item("0", "What?", (), "B", choices=COLOURS, facts={"question": "What?"}),
    "chartqa": Item("0", "What?", (), "3"),
    "charxiv": Item("0", "What?", (), "3", facts={"question": "What?", "answer_type": 4, "prompts": ""}),
    "mathvision": Item("0", "What?", (), "4", facts={"answer": "(3,-4)", "option": ""}),
    "mathvista": Item("0", "What?", (), "B", choices=COLOURS, facts=CHOICE),
    "mathvista_corrected": Item("0", "What?", (), "1.2", facts=NUMBER),
    "mathverse": Item("0", "What?", (), "B", facts={"question": "What?"}),
    "wemath": Item("0", "What?", (), "B"),
}
REPLIES = (
    *(
        "\x00",
        "\ud800",
        "\u202e4",
        "%",
        "-",
        "nan",
        "1e999",
        "inf%",
        "0x4",
        "{}",
        "[]",
        "<|im_end|>",
        "{question}",
        "{0}",
    ),
    *(
        sign * 20_000
        for sign in ("A ", "(A", "A or B ", "answer is ", "1", "1,", "1,111", "111,", "*", "[", "\n", "%", "\\frac{")
    ),
    "answer" + "\n" * 20_000 + "x",
    "\\sin" * 249 + "1",
    "(" + "2^{4000}" * 4 + ",1)",
    "(1000!1000!,1)",
)


@pytest.mark.parametrize("name", ITEMS)
def test_any_reply_has_a_score_or_a_request(name: str) -> None:
    for reply in REPLIES:
        found = task_of(name).official(ITEMS[name], reply)
        assert isinstance(found, Score | JudgeRequest)
        assert not isinstance(found, Score) or found.value in (0.0, 1.0)


@pytest.mark.parametrize("name", ["mathvista", "mathvista_corrected", "mathverse", "charxiv"])
def test_any_reply_of_a_judge_is_read(name: str) -> None:
    """Requests are followed to their end."""
    asked = task_of(name).official(ITEMS[name], "I think so")
    assert isinstance(asked, JudgeRequest)
    for reply in REPLIES:
        found: Score | JudgeRequest | None = asked
        while isinstance(found, JudgeRequest):
            found = found.read(reply)
        assert found is None or found.value in (0.0, 1.0, None)
