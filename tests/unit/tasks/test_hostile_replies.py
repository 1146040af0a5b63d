"""No reply of a model ends an evaluation, and none that long reads as an answer."""

from __future__ import annotations

import pytest

from codedance_verl.tasks.item import Item, JudgeRequest, Score
from codedance_verl.tasks.registry import task_of

COLOURS = ("red", "blue", "green", "black")
ITEMS = {
    "countbench": Item("0", "How many?", (), "4"),
    "pixmocount": Item("0", "How many?", (), "4"),
    "vstar": Item("0", "What?\n(A) red\n(B) blue\n(C) green\n(D) black", (), "B", choices=COLOURS),
    "hrbench_4k": Item("0", "What?", (), "B", choices=COLOURS, facts={"question": "What?"}),
    "chartqa": Item("0", "What?", (), "3"),
    "charxiv": Item("0", "What?", (), "3", facts={"question": "What?", "answer_type": 4, "prompts": ""}),
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
        for sign in ("A ", "(A", "A or B ", "answer is ", "1", "1,", "1,111", "*", "[", "\n", "%", "\\frac{")
    ),
)


@pytest.mark.parametrize("name", ITEMS)
def test_any_reply_has_a_score_or_a_request(name: str) -> None:
    for reply in REPLIES:
        found = task_of(name).official(ITEMS[name], reply)
        assert isinstance(found, Score | JudgeRequest)
        assert not isinstance(found, Score) or found.value in (0.0, 1.0)
