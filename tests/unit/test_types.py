"""The id and the question of a record, by one rule each."""

from __future__ import annotations

from typing import Any

import pytest

from codedance_verl.types import question_of, record_id_of

MESSAGES = (("system", "Be brief."), ("user", "<image>\nHow many cats?\n"), ("assistant", "Which ones?"))


@pytest.mark.parametrize(
    ("extra_info", "expected"),
    [
        ({"record_id": "cats-7", "index": 3}, "cats-7"),
        ({"index": 0}, "own/0"),
        ({"index": ""}, "own/?"),
        (None, "own/?"),
    ],
)
def test_a_record_has_the_id_it_states(extra_info: dict[str, Any] | None, expected: str) -> None:
    assert record_id_of({"data_source": "own", "extra_info": extra_info}) == expected


def test_a_question_is_the_one_that_is_stated_else_the_last_of_the_user_without_its_images() -> None:
    assert question_of({"question": "How many dogs?"}, MESSAGES) == "How many dogs?"
    for extra_info in (None, {}, {"question": ""}, {"question": None}):
        assert question_of(extra_info, MESSAGES) == "How many cats?"
    assert question_of(None, MESSAGES[:1]) == ""
