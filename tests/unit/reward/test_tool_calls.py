from __future__ import annotations

import pytest

from codedance_verl.reward.tool_calls import CallKind, call_kinds, count, does_something
from tests.unit.reward.rollouts import from_texts, trajectory


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("ok", CallKind.HELPFUL),
        ("no_output", CallKind.HELPFUL),
        ("error", CallKind.FAILED),
        ("timeout", CallKind.FAILED),
        ("killed", CallKind.FAILED),
        ("rejected", CallKind.INVALID),
    ],
)
def test_the_record_says_how_a_call_ended(status: str, kind: CallKind) -> None:
    assert call_kinds(trajectory(status)) == (kind, None)


def test_the_same_code_run_again_is_repeated_whatever_its_comments() -> None:
    codes = ("x = f()", "# once more\nx = f()  \n\n", "y = f()")
    kinds = call_kinds(trajectory("ok", "ok", "ok", codes=codes))
    assert kinds == (CallKind.HELPFUL, CallKind.REPEATED, CallKind.HELPFUL, None)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("print(1)  # a", "print(1)  # b", True),
        ("print(1)", "print(1);", True),
        ("f(1,  2)\n", "f( 1, 2, ) # again", True),
        ("f('a')", 'f("a")', True),
        ("%matplotlib inline  \n# a", "%matplotlib inline", True),
        ("f('''\n# a\n''')", "f('''\n# b\n''')", False),
        ("f('#a')", "f('#b')", False),
        ("f('a b')", "f('ab')", False),
        ("f(1, 2)", "f(12)", False),
        ("%cd a;b", "%cd ab", False),
    ],
)
def test_what_is_the_same_code(first: str, second: str, same: bool) -> None:
    kinds = call_kinds(trajectory("ok", "ok", codes=(first, second)))
    assert kinds == (CallKind.HELPFUL, CallKind.REPEATED if same else CallKind.HELPFUL, None)


@pytest.mark.parametrize(
    "code",
    ["f(" * 3000 + ")" * 3000, "x = " + "-" * 3000 + "1", "x" + ".y" * 50_000, "x = 0x" + "f" * 5000, "f(\x00)"],
    ids=["brackets", "signs", "attributes", "number", "null"],
)
def test_code_that_cannot_be_parsed_or_written_out_is_compared_as_text(code: str) -> None:
    codes = (code, f"# once more\n{code}  \n", f"{code}\ny = 1")
    kinds = call_kinds(trajectory("ok", "ok", "ok", codes=codes))
    assert kinds == (CallKind.HELPFUL, CallKind.REPEATED, CallKind.HELPFUL, None)


def test_code_that_failed_before_may_be_run_again() -> None:
    codes = ("f(x)", "x = 1", "f(x)")
    kinds = call_kinds(trajectory("error", "ok", "ok", codes=codes))
    assert kinds == (CallKind.FAILED, CallKind.HELPFUL, CallKind.HELPFUL, None)


def test_code_that_was_written_and_not_run_is_no_call() -> None:
    assert call_kinds(from_texts(["<code>\n```python\nf()\n```\n</code>"])) == (None,)


def test_counting() -> None:
    kinds = (CallKind.HELPFUL, None, CallKind.FAILED, CallKind.HELPFUL)
    assert (count(kinds), count(kinds, CallKind.HELPFUL), count(kinds, CallKind.IDLE)) == (3, 2, 0)


@pytest.mark.parametrize(
    ("code", "real"),
    [
        ("", False),
        ("# x = 1", False),
        ("pass", False),
        ("...", False),
        ("'x'; 3", False),
        ("'''\nx = 1\n'''", False),
        ('"""\nimport os\nf()"""\npass', False),
        ("'a\\\nf()'", False),
        ("# f()\npass  # g()", False),
        ("-5", False),
        ("f''", False),
        ("f'{3}'", False),
        ("()", False),
        ("[1, (2, -3)]", False),
        ("{}; {'a': 1}; {2}", False),
        ("not 5", False),
        ("if 0: pass", False),
        ("if(1):\n    'x'\nelse:\n    pass", False),
        ("while 0: pass", False),
        ("x = 1", True),
        ("-x", True),
        ("[f()]", True),
        ("f'{x}'", True),
        ("if x: pass", True),
        ("if 1:\n    f()", True),
        ("not(f())", True),
        ("f()", True),
        ("import os", True),
        ("x", True),
        ("1 + 1", True),
        ("'''doc'''\nx = 1", True),
        ("for a in b: pass", True),
        ("while f(): pass", True),
        ("%matplotlib inline", True),
        ("\x00", True),
        ("(" * 500 + ")" * 500, True),
    ],
)
def test_code_that_does_something(code: str, real: bool) -> None:
    assert does_something(code) is real
