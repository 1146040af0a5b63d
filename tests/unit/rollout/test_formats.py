from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codedance_verl.rollout.formats import FORMATS, ParsedTurn, TurnFormat, get_format, render_answer, render_think

CODE = get_format("code")
ALL = pytest.mark.parametrize("written", FORMATS.values(), ids=FORMATS)


@ALL
def test_a_rendered_call_is_read_back_unchanged(written: TurnFormat) -> None:
    code = 'total = 0\nfor row in range(3):\n    total += row\nprint("é <b>", total)'
    assert written.parse(f"{render_think('count')}\n{written.render_call(code)}") == ParsedTurn(code=code)


@ALL
@given(code=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="`<")))
def test_any_code_is_read_back_unchanged(written: TurnFormat, code: str) -> None:
    assert written.parse(written.render_call(code)).code == code


@ALL
def test_a_call_ends_where_generation_stops(written: TurnFormat) -> None:
    assert written.render_call("x = 1").endswith(written.call_end)


@ALL
def test_rendered_answer_is_read_back_stripped(written: TurnFormat) -> None:
    assert written.parse(f"<think>easy</think>\n{render_answer(' 7 ')}") == ParsedTurn(answer="7")


@ALL
def test_an_answer_written_before_its_feedback_does_not_count(written: TurnFormat) -> None:
    turn = render_answer("7") + "\n" + written.render_call("print(7)")
    assert written.parse(turn) == ParsedTurn(code="print(7)")


@ALL
@pytest.mark.parametrize("text", ["", "print(3)", "<answer>3", "3</answer>", "<tool_response>\n3\n</tool_response>"])
def test_unclosed_or_missing_tags_are_neither_call_nor_answer(written: TurnFormat, text: str) -> None:
    assert written.parse(text) == ParsedTurn()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("code", "```python\nprint(3)\n```"),
        ("code", "<code>\n```python\nprint(3)\n```"),
        ("tool_call", '<tool_call>{"name": "execute_python_code", "arguments": {"code": "x"}}'),
        ("fence", "```python\nprint(3)"),
    ],
)
def test_a_call_that_is_not_closed_is_none(name: str, text: str) -> None:
    assert get_format(name).parse(text) == ParsedTurn()


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("code", "<code>print(3)</code>", "no fenced Python block"),
        ("code", "<code>\n```python\nprint(3)\n</code>", "no fenced Python block"),
        ("tool_call", "<tool_call>{code}</tool_call>", "no valid JSON"),
        ("tool_call", '<tool_call>{"name": "search", "arguments": {}}</tool_call>', "only function"),
        ("tool_call", '<tool_call>{"name": "execute_python_code", "arguments": "x"}</tool_call>', "takes"),
        ("tool_call", "<tool_call>" + "[" * 100_000 + "</tool_call>", "no valid JSON"),
    ],
)
def test_a_call_that_cannot_be_read_says_why(name: str, text: str, told: str) -> None:
    parsed = get_format(name).parse(text)
    assert parsed.code is None and parsed.answer is None and parsed.fault is not None and told in parsed.fault


@pytest.mark.parametrize("name", ["code", "fence"])
def test_several_fences_are_one_cell(name: str) -> None:
    text = "```python\na = 1\n```\nand then\n```py\nprint(a)\n```\n"
    turn = f"<code>\n{text}</code>" if name == "code" else text
    assert get_format(name).parse(turn).code == "a = 1\nprint(a)"


def test_the_last_of_several_answers_counts() -> None:
    assert CODE.parse("<answer>1</answer> no, <answer>2</answer>").answer == "2"


def test_a_fence_without_a_language_is_code() -> None:
    assert CODE.parse("<code>\n```\nx = 1\n```\n</code>").code == "x = 1"


def test_line_breaks_within_json_strings_are_read() -> None:
    call = '<tool_call>{"name": "execute_python_code", "arguments": {"code": "a = 1\nprint(a)"}}</tool_call>'
    assert get_format("tool_call").parse(call).code == "a = 1\nprint(a)"


def test_code_that_would_not_be_read_back_is_not_rendered() -> None:
    with pytest.raises(ValueError, match="cannot be fenced"):
        CODE.render_call("text = '''\n```\n'''")


@ALL
def test_reading_takes_time_in_proportion_to_length(written: TurnFormat) -> None:
    for piece in ("<code>", "<answer>", "```python\n", "<tool_call>", "```\n"):
        written.parse(piece * 100_000)  # would take hours if it were quadratic
