from __future__ import annotations

import pytest

from codedance_verl.rollout.parsing import ParsedTurn, parse_turn, render_answer, render_code, render_think


def test_rendered_code_is_read_back_unchanged() -> None:
    code = "total = 0\nfor row in range(3):\n    total += row\nprint(total)"
    assert parse_turn(f"{render_think('count')}\n{render_code(code)}").code == code


def test_rendered_answer_is_read_back_stripped() -> None:
    assert parse_turn(f"<think>easy</think>\n{render_answer(' 7 ')}") == ParsedTurn(code=None, answer="7")


def test_an_answer_written_before_its_feedback_does_not_count() -> None:
    turn = render_answer("7") + render_code("print(7)")
    assert parse_turn(turn) == ParsedTurn(code="print(7)", answer=None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "print(3)",
        "```python\nprint(3)\n```",
        "<code>\n```python\nprint(3)\n```",
        "<code>print(3)</code>",
        "<answer>3",
        "<tool_response>\n3\n</tool_response>",
    ],
)
def test_unclosed_or_missing_tags_are_neither_code_nor_answer(text: str) -> None:
    assert parse_turn(text) == ParsedTurn(code=None, answer=None)


def test_the_last_of_several_answers_counts() -> None:
    assert parse_turn("<answer>1</answer> no, <answer>2</answer>").answer == "2"


def test_a_fence_without_a_language_is_code() -> None:
    assert parse_turn("<code>\n```\nx = 1\n```\n</code>").code == "x = 1"
