"""Text as a terminal shows it in the end."""

from __future__ import annotations

import time

import pytest

from codedance_verl.sandbox.terminal import as_seen


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain\ttext\n  two \n", "plain\ttext\n  two \n"),
        ("a\rb", "b"),
        ("abc\rx", "xbc"),
        ("10%\r 50%\r100%\n", "100%\n"),
        ("a\r\nb\r\n", "a\nb\n"),
        ("ab\bc", "ac"),
        ("working\r\x1b[Kdone", "done"),
        ("x\x1b[2K\ry", "y"),
        ("\x1b[1;31mred\x1b[0m text", "red text"),
        ("\x1b]0;title\x07hi", "hi"),
        ("\x1b]8;;http://a\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("a\x00b\x07", "ab"),
        ("outer\ninner\r     \r\x1b[Aouter 100%\n", "outer 100%\n"),
        ("\x1b[999999999999A\x1b[x", ""),
        ("\x1b", ""),
        ("数\r数量", "数量"),
    ],
)
def test_text_is_what_is_seen_in_the_end(text: str, seen: str) -> None:
    assert as_seen(text) == seen
    assert as_seen(seen) == seen


@pytest.mark.parametrize(
    "unit", ["\r", "a\r", "\x1b[", "\x1b]", "x" * 100 + "\r", "\x1b[K", "y" * 50 + "\x1b[2K", "\x1b[A\n", "\b"]
)
def test_hostile_text_costs_time_in_proportion(unit: str) -> None:
    def cost(length: int) -> float:
        text = (unit * length)[:length]
        began = time.process_time()
        as_seen(text)
        return time.process_time() - began

    assert cost(400_000) < 40 * max(cost(40_000), 0.01)
