from __future__ import annotations

import threading
import time

from benchmarks.stopwatch import Stopwatch


def spend(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def outer() -> None:
    spend(0.02)
    Inner.of_class()
    Inner().method()


class Inner:
    @classmethod
    def of_class(cls) -> type[Inner]:
        spend(0.03)
        return cls

    def method(self) -> None:
        spend(0.03)


class Child(Inner):
    """Inherits both."""


def test_time_counts_once_for_the_innermost_part_in_every_thread() -> None:
    watch, here = Stopwatch(), __name__
    parts = {f"{here}:outer": "outer", f"{here}:Inner.of_class": "inner", f"{here}:Inner.method": "inner"}
    with watch.watching(parts):
        threads = [threading.Thread(target=lambda: outer()) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert Child.of_class() is Child
    assert watch.calls == {"outer": 2, "inner": 5}
    assert 0.04 <= watch.seconds["outer"] < watch.seconds["inner"] / 2  # else it would have that of the inner ones too
    outer()
    assert watch.calls["outer"] == 2  # put back
