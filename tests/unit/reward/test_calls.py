from __future__ import annotations

import pytest

from codedance_verl.reward.calls import CallKind, call_kinds, count, does_something
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
        ("x = 1", True),
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
