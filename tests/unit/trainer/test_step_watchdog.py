from __future__ import annotations

import threading
import time

import pytest

from codedance_verl.trainer.step_watchdog import StepWatchdog, stack_of


@pytest.mark.timeout(20)
def test_what_takes_too_long_is_told_once_and_by_name() -> None:
    told: list[str] = []
    noticed = threading.Event()

    def stalled(what: str) -> None:
        told.append(what)
        noticed.set()

    watch = StepWatchdog(0.2, stalled)
    for step in range(6):
        watch.begin(f"step {step}")
        time.sleep(0.05)
    assert told == []
    watch.begin("step 7")
    assert noticed.wait(10)
    time.sleep(0.3)
    assert told == ["step 7"]


@pytest.mark.timeout(20)
def test_what_could_not_be_told_is_told_at_the_next_look() -> None:
    told: list[str] = []
    noticed = threading.Event()

    def stalled(what: str) -> None:
        told.append(what)
        if len(told) < 3:
            raise OSError("stale file handle")
        noticed.set()

    StepWatchdog(0.1, stalled).begin("step 7")
    assert noticed.wait(10)
    assert told == ["step 7"] * 3


@pytest.mark.timeout(20)
@pytest.mark.parametrize("limit_s", [None, 0.05])
def test_nothing_under_way_is_never_too_long(limit_s: float | None) -> None:
    told: list[str] = []
    watch = StepWatchdog(limit_s, told.append)
    watch.begin("step 1")
    watch.rest()
    time.sleep(0.2)
    assert told == []


@pytest.mark.timeout(20)
def test_the_calls_of_a_thread_are_named_from_the_first_of_ours() -> None:
    ready, release = threading.Event(), threading.Event()

    def waits_for_rollouts() -> None:
        ready.set()
        release.wait(10)

    thread = threading.Thread(target=waits_for_rollouts)
    thread.start()
    try:
        assert ready.wait(10)
        lines = stack_of(thread, inside="test_step_watch").splitlines()
    finally:
        release.set()
        thread.join()
    assert lines[0].strip().startswith("waits_for_rollouts (")
    assert "wait" in lines[-1]
