"""A lock keeps others out for as long as it is held, and is waited for no longer than was said."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from codedance_verl.runtime.locks import Locked, exclusive_lock


def test_a_lock_is_waited_for_as_long_as_was_said(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with exclusive_lock(path, "busy") as held:
        assert held
        started = time.monotonic()
        with pytest.raises(Locked, match=r"^busy$"), exclusive_lock(path, "busy", wait_s=0.3, poll_s=0.01):
            pass
        assert 0.3 <= time.monotonic() - started < 5


def test_who_waits_gets_the_lock_when_it_is_free(tmp_path: Path) -> None:
    path, taken = tmp_path / "lock", threading.Event()

    def hold() -> None:
        with exclusive_lock(path, "busy"):
            taken.set()
            time.sleep(0.2)

    holder = threading.Thread(target=hold)
    holder.start()
    assert taken.wait(10)
    with exclusive_lock(path, "busy", wait_s=10, poll_s=0.01) as held:
        assert held
    holder.join()
