"""A watchdog polls until it has found something or is stopped, whatever a poll raises."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from codedance_verl.runtime.watchdog import Watchdog


def test_an_error_costs_one_poll_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    polls: list[int] = []
    found = threading.Event()

    def poll() -> bool:
        polls.append(1)
        if len(polls) < 3:
            raise OSError("stale file handle")
        found.set()
        return True

    with caplog.at_level(logging.WARNING), Watchdog(0.01, poll, "disk"):
        assert found.wait(10)
        time.sleep(0.1)
    assert len(polls) == 3, "it ends with what it has found"
    assert [record.getMessage() for record in caplog.records] == [
        "disk: a check has failed, the next one follows: stale file handle"
    ] * 2


def test_none_is_called_after_it_was_stopped() -> None:
    polls: list[int] = []
    with Watchdog(0.01, lambda: polls.append(1), "counter") as watchdog:
        deadline = time.monotonic() + 10
        while not polls and time.monotonic() < deadline:
            time.sleep(0.01)
        assert polls and not watchdog.stopped
    assert watchdog.stopped
    count = len(polls)
    time.sleep(0.1)
    assert len(polls) == count
