from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codedance_verl.formats import (
    ANSWER_END,
    FORMATS,
    ParsedTurn,
    TurnFormat,
    get_format,
    render_answer,
    render_think,
)
from codedance_verl.formats.tool_call import FUNCTION

CODE = get_format("code")
ALL = pytest.mark.parametrize("written", FORMATS.values(), ids=FORMATS)


@ALL
def test_a_rendered_call_is_read_back_unchanged(written: TurnFormat) -> None:
    code = 'total = 0\nfor row in range(3):\n    total += row\nprint("é <b>", total)'
    assert written.parse(f"{render_think('count')}\n{written.render_call(code)}") == ParsedTurn(code=code)


TAGS = ("<code>", "</code>", "<tool_call>", "</tool_call>", "<answer>", "</answer>", "<think>", "</think>")
TEXT = st.characters(exclude_categories=["Cs"])
CODES = st.one_of(
    st.text(TEXT),
    st.lists(
        st.sampled_from(
            ["```", "````", "```python", "\n", " ", "x = 1", "'''", '"""', "#", '"', "\\", "\r", "`", "{", "}"]
        )
    ).map("".join),
)
TURNS = st.lists(
    st.one_of(
        st.sampled_from(
            [*TAGS, "\n", "\n```", "\n```\n", "\n```python\n", "\n````py\n", "\n```json\n", "'''", "# ", '"']
        ),
        st.sampled_from(
            ['{"name": "execute_python_code", "arguments": {"code": "x"}}', " ", "x", "print(1)", "```", "\\"]
        ),
        st.text(TEXT, max_size=3),
    ),
    max_size=25,
).map("".join)


@ALL
@given(code=CODES)
def test_any_code_is_read_back_unchanged(written: TurnFormat, code: str) -> None:
    call = written.render_call(code)
    assert written.parse(call).code == code
    assert written.parse(f"{render_think('so')}\n{call}").code == code


@ALL
@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("code", ["print('{}')", "x = 1  # {}", "x = '''\n```\n{}\n'''\nprint(x)", 'f"""{}"""'])
def test_tags_in_strings_and_comments_of_code_are_code(written: TurnFormat, tag: str, code: str) -> None:
    call = written.render_call(code.format(tag))
    assert written.parse(call) == ParsedTurn(code=code.format(tag))
    assert written.end(call) == len(call)
    assert written.count_calls(call) == (1, 1) and written.count_answers(call) == (0, 0)


def test_a_closing_tag_outside_of_strings_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="outside of its strings"):
        CODE.render_call("x = </code>")


@ALL
@given(text=TURNS)
def test_any_text_is_read_and_its_end_does_not_depend_on_what_follows(written: TurnFormat, text: str) -> None:
    written.parse(text)
    ends = {end for length in range(len(text) + 1) if (end := written.end(text[:length])) is not None}
    whole = written.end(text)
    assert ends == (set() if whole is None else {whole})


@ALL
@given(text=TURNS)
def test_what_generation_stopped_at_asks_for_something_or_is_stray(written: TurnFormat, text: str) -> None:
    end = written.end(text)
    if end is not None and written.parse(text[:end]) == ParsedTurn():
        assert text[:end].endswith((ANSWER_END, written.call_end))


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
        ("code", "<code>\n```python\nprint('<answer>3</answer>"),
        ("tool_call", '<tool_call>{"name": "execute_python_code", "arguments": {"code": "<answer>3</answer>'),
        ("fence", "```py\nprint('<answer>3</answer>"),
    ],
)
def test_a_call_that_is_not_closed_is_none(name: str, text: str) -> None:
    assert get_format(name).parse(text) == ParsedTurn()


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("code", "<code>print(3)</code>", "no fenced Python block"),
        ("code", "<code>\n```python\nprint(3)\n</code>", "no fenced Python block"),
        ("code", "<code>\n```json\n[1]\n```\n</code>", "no fenced Python block"),
        ("code", "<code>\n```python\nx = '''\n</code>", "no fenced Python block"),
        ("tool_call", "<tool_call>{code}</tool_call>", "no valid JSON"),
        ("tool_call", '<tool_call>{"name": "search", "arguments": {}}</tool_call>', "only function"),
        ("tool_call", '<tool_call>{"name": "execute_python_code", "arguments": "x"}</tool_call>', "takes"),
        ("tool_call", "<tool_call>" + "[" * 20_000 + "</tool_call>", "no valid JSON"),
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


LABELS = [
    "",
    "python",
    "Python",
    "PYTHON",
    " python",
    "python3",
    "python3.11",
    "py",
    "Py3",
    "ipython",
    "{python}",
    "python title=a",
]


@pytest.mark.parametrize("name", ["code", "fence"])
@pytest.mark.parametrize("label", LABELS)
def test_any_label_of_python_opens_a_call(name: str, label: str) -> None:
    text = f"so\n```{label}\nprint(1)\n```\n"
    assert get_format(name).parse(f"<code>\n{text}</code>" if name == "code" else text).code == "print(1)"


@pytest.mark.parametrize("label", ["json", "bash", "text", "pycon", "python-repl", "cpp", "pyx", "c", "output"])
def test_a_fence_of_another_language_is_no_call_and_ends_no_turn(label: str) -> None:
    fence = get_format("fence")
    seen = f"I see\n```{label}\n1\n```\n"
    assert fence.parse(seen) == ParsedTurn() and fence.end(seen) is None
    assert fence.parse(f"{seen}so\n```python\nprint(2)\n```\n") == ParsedTurn(code="print(2)")
    assert fence.parse(f"{seen}<answer>3</answer>") == ParsedTurn(answer="3")
    assert fence.parse(f"```{label}\n<answer>3</answer>") == ParsedTurn(answer="3")


SHAPES = {
    "at the end of the last line": "```python\nprint(1)```\n",
    "longer": "`````python\nprint(1)\n`````\n",
    "closed by a longer one": "```python\nprint(1)\n````\n",
    "spaces behind": "``` python  \nprint(1)\n```  \n",
    "carriage returns": "```python\r\nprint(1)\n```\r\n",
    "indented": "  ```python\n  print(1)\n  ```\n",
    "indented by a tab": "\t```python\n\tprint(1)\n\t```\n",
    "only its fences are indented": "  ```python\nprint(1)\n  ```\n",
}


@pytest.mark.parametrize("name", ["code", "fence"])
@pytest.mark.parametrize("shape", SHAPES)
def test_fences_of_any_shape(name: str, shape: str) -> None:
    turn = f"<code>\n{SHAPES[shape]}</code>" if name == "code" else SHAPES[shape]
    assert get_format(name).parse(turn) == ParsedTurn(code="print(1)")
    assert get_format(name).end(turn) == len(turn)


CLOSINGS = {
    "on one line": "<code>```python\nprint(1)```</code>",
    "the fence before the tag": "<code>\n```python\nprint(1)\n```</code>",
    "a shorter fence": "<code>\n````python\nprint(1)\n```\n</code>",
    "words before": "<code>\nThis crops:\n```python\nprint(1)\n```\n</code>",
    "words behind": "<code>\n```python\nprint(1)\n```\nThat was it.\n</code>",
    "another language first": "<code>\n```json\n[1]\n```\n```python\nprint(1)\n```\n</code>",
}


@pytest.mark.parametrize("shape", CLOSINGS)
def test_a_block_in_code_tags_ends_with_the_tag_at_the_latest(shape: str) -> None:
    assert CODE.parse(CLOSINGS[shape]) == ParsedTurn(code="print(1)")


def test_an_indented_block_keeps_the_indentation_of_its_own() -> None:
    code = "if x:\n    y = '''\nz\n'''\n    print(y)"
    indented = "\n".join(f"   {line}" if line not in ("z", "'''") else line for line in code.split("\n"))
    assert CODE.parse(f"1. Look:\n<code>\n   ```python\n{indented}\n   ```\n</code>").code == code


def test_a_string_that_never_ends_is_code_up_to_the_last_fence() -> None:
    """The interpreter says what is wrong with it."""
    assert CODE.parse("<code>\n```python\nx = '''a\n```\n</code>").code == "x = '''a"
    fence = get_format("fence")
    assert fence.parse("```python\nx = '''a\n```\n").code == "x = '''a"
    assert fence.end("```python\nx = '''a\n```\n") is None


@ALL
@pytest.mark.parametrize(
    "thought",
    ["I use {call} now", "The form is {call}...{end} and <answer>3</answer>.", "Is it <answer>3</answer>? No."],
)
def test_what_a_thought_names_is_neither_call_nor_answer(written: TurnFormat, thought: str) -> None:
    if written.name == "fence":
        thought = thought.replace("{call}...{end}", "a fence")
    said = thought.format(call=written.call_start, end=written.call_end)
    assert written.end(f"<think>{said}") is None
    assert written.parse(f"<think>{said}") == ParsedTurn()
    turn = f"{render_think(said)}\n{written.render_call('x = 1')}"
    assert written.parse(turn) == ParsedTurn(code="x = 1") and written.end(turn) == len(turn)
    assert written.count_calls(turn) == (1, 1) and written.count_answers(turn) == (0, 0)
    turn = f"{render_think(said)}\n{render_answer('4')}"
    assert written.parse(turn) == ParsedTurn(answer="4") and written.end(turn) == len(turn)


@ALL
def test_a_call_counts_in_a_thought_that_is_not_closed(written: TurnFormat) -> None:
    turn = f"<think>so\n{written.render_call('x = 1')}"
    assert written.parse(turn) == ParsedTurn(code="x = 1") and written.end(turn) == len(turn)


def test_where_call_and_answer_begin() -> None:
    thought = render_think("<code> or <answer>")
    for turn in (f"{thought}{CODE.render_call('x')}", f"{thought}{render_answer('3')}"):
        assert CODE.parse(turn).start == len(thought)


FORMS_OF_A_CALL = {
    "arguments as text": json.dumps({"name": FUNCTION, "arguments": json.dumps({"code": "print(1)"})}),
    "a brace too many": json.dumps({"name": FUNCTION, "arguments": {"code": "print(1)"}}) + "}",
    "a fence around": "```json\n" + json.dumps({"name": FUNCTION, "arguments": {"code": "print(1)"}}) + "\n```",
    "a fence in the code": json.dumps({"name": FUNCTION, "arguments": {"code": "```python\nprint(1)\n```"}}),
    "a fence in the code, and space": json.dumps({"name": FUNCTION, "arguments": {"code": "\n```py\nprint(1)\n```\n"}}),
    "other keys": json.dumps({"id": 1, "name": FUNCTION, "arguments": {"code": "print(1)", "timeout": 3}}),
}


@pytest.mark.parametrize("form", FORMS_OF_A_CALL)
def test_json_calls_as_models_write_them(form: str) -> None:
    call = f"<tool_call>\n{FORMS_OF_A_CALL[form]}\n</tool_call>"
    assert get_format("tool_call").parse(call) == ParsedTurn(code="print(1)")


PIECES = [
    *TAGS,
    "```python\n",
    "```\n",
    "```",
    "`",
    "'''",
    "\n",
    " ",
    "\\",
    '"',
    "#",
    "{",
    "</code>\n```python\n",
    "<code>\n```py\n",
]
BEGINNINGS = [
    "",
    "<think>",
    "<code>",
    "<code>\n```python\n",
    "<code>\n```python\n'''",
    "```python\n'''",
    "```json\n",
    "<tool_call>{",
]


@ALL
@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_reading_takes_time_in_proportion_to_length(written: TurnFormat, beginning: str) -> None:
    for piece in PIECES:  # would take minutes if it were quadratic
        written.parse(beginning + piece * 20_000)
        written.parse(beginning + piece * 20_000 + "x")
