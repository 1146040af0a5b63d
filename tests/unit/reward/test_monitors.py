from __future__ import annotations

import json

import pytest

from codedance_verl.errors import UserError
from codedance_verl.reward.monitors import (
    CollapseMonitor,
    MonitorConfig,
    answer_in_code,
    shown_constants,
    tool_use_counts,
)
from codedance_verl.types import FinishReason, Trajectory
from tests.unit.reward.rollouts import trajectory

WINDOW = MonitorConfig(window=8)
GOOD = trajectory("ok", codes=("x = count(input_image)",))


def names(rollouts: list[Trajectory], config: MonitorConfig = WINDOW) -> list[str]:
    return [finding.name for finding in CollapseMonitor(config).add(rollouts)]


def test_healthy_rollouts_raise_no_finding() -> None:
    assert names([GOOD] * 7 + [trajectory()]) == []


@pytest.mark.parametrize(
    ("rollout", "sign"),
    [
        (trajectory(), "tool_rate"),
        (trajectory("error", codes=("f()",)), "failed"),
        (trajectory("rejected"), "invalid"),
        (trajectory("ok", codes=("# nothing",)), "idle"),
        (trajectory("ok", "ok", codes=("f()", "f()")), "repeated"),
        (trajectory("ok", codes=("print('3')",)), "answer_in_code"),
        (trajectory("ok", codes=("f()",), answer=None, finish=FinishReason.TURN_LIMIT), "cut_off"),
    ],
)
def test_each_sign_of_a_collapse_is_found(rollout: Trajectory, sign: str) -> None:
    assert names([rollout] * 8) == [sign]


def test_tool_use_that_is_forced_is_found_where_a_bound_is_set() -> None:
    (finding,) = CollapseMonitor(WINDOW.replace(max_tool_rate=0.9)).add([GOOD] * 8)
    assert str(finding).startswith("tool_rate is 100.0%, above its bound of 90.0%: tool use")


def test_nothing_is_said_before_a_window_is_full_and_faults_are_not_counted() -> None:
    monitor = CollapseMonitor(WINDOW)
    lost = trajectory(answer=None, finish=FinishReason.INFRASTRUCTURE)
    assert monitor.add([trajectory()] * 7 + [lost] * 20) == [] and monitor.rates is None
    assert len(monitor.add([trajectory()])) == 1
    assert monitor.rates is not None and monitor.rates.tool_rate == 0


def test_a_run_is_stopped_only_after_so_many_windows_in_a_row() -> None:
    monitor = CollapseMonitor(WINDOW.replace(stop_after=2))
    first = monitor.add([trajectory()] * 8)
    assert not monitor.must_stop(first)
    assert not monitor.must_stop(monitor.add([GOOD] * 8))
    assert not monitor.must_stop(monitor.add([trajectory()] * 8))
    last = monitor.add([trajectory()] * 8)
    assert monitor.must_stop(last) and "for 2 windows" in str(last[0])
    assert not CollapseMonitor(WINDOW).must_stop(last)


@pytest.mark.parametrize(
    ("code", "answer", "written"),
    [
        ("print('Red')", "red", True),
        ("answer = 'red'", "red", True),
        ("'red'", "red", True),
        ("print(12)", "12", True),
        ("x = 12\nprint(x)", "12", False),
        ("print(count(12))", "12", False),
        ("print(6 + 6)", "12", False),
        ("def f(:", "12", False),
        ("print(-3)", "-3", True),
        ("answer: int = 3", "3", True),
        ("answer: int", "3", False),
        ("print(-x, not 3)", "-3", False),
    ],
)
def test_an_answer_that_code_shows_without_computing_it(code: str, answer: str, written: bool) -> None:
    assert answer_in_code(trajectory("ok", codes=(code,), answer=answer)) is written


def test_code_that_was_not_run_does_not_count() -> None:
    assert not answer_in_code(trajectory(answer="3"))
    assert shown_constants("(" * 500 + ")" * 500) == frozenset()


def test_a_number_too_long_to_be_written_out_is_no_answer() -> None:
    number = "0x" + "f" * 3600
    rollout = trajectory("ok", codes=(f"x = len([{number}])\n{number}; print(x)",), answer="1")
    assert not answer_in_code(rollout)
    assert shown_constants(f"print('3', -{number}, {number})") == {"3"}


@pytest.mark.parametrize(
    "code",
    [
        *("print(" * 3000 + ")" * 3000, "-" * 3000 + "1", "not " * 50_000 + "1", "x" + ".y" * 50_000),
        *("[" * 150 + "]" * 150, "answer = " + "9" * 5000, "print(0x" + "f" * 5000 + ")", "answer = 1e999; -1e999"),
        *("\x00", "\ud800", "f'{" * 200, "answer = '\\ud800'", "print(b'\\xff', 1j, ...)"),
    ],
)
def test_no_code_is_too_odd_to_be_looked_at(code: str) -> None:
    kinds = tool_use_counts(trajectory("ok", "ok", codes=(code, f"{code} # again"), answer="1"))
    assert kinds["calls"] == 2 and not kinds["answer_in_code"]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"window": 2}, r"monitors\.window=2: must be a whole number from 8"),
        ({"max_idle": 2}, r"monitors\.max_idle=2: must be a number from 0 to 1"),
        ({"stop_after": 0}, r"monitors\.stop_after=0: must be a whole number from 1"),
        ({"max_spam": 0.1}, r"monitors\.max_spam: unknown key; known are window"),
    ],
)
def test_bad_bounds_are_named(values: dict[str, object], told: str) -> None:
    with pytest.raises(UserError, match=told):
        MonitorConfig.from_mapping(values)


def test_a_window_goes_on_where_a_checkpoint_left_it() -> None:
    rollouts = [trajectory("error", codes=("f()",))] * 5 + [GOOD] * 15
    straight, first, resumed = (CollapseMonitor(WINDOW) for _ in range(3))
    found = [straight.add([rollout]) for rollout in rollouts]
    for rollout in rollouts[:13]:
        first.add([rollout])
    resumed.restore(json.loads(json.dumps(first.state())))
    assert [resumed.add([rollout]) for rollout in rollouts[13:]] == found[13:]
    assert any(found[:13])
