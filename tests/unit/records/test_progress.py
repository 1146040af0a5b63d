"""The line of progress: what is done, the rate of the last minutes, the time left."""

from __future__ import annotations

from codedance_verl.records.progress import WINDOW_S, Progress
from codedance_verl.records.record import Status


def test_what_was_on_record_counts_as_done_and_not_for_the_rate() -> None:
    progress = Progress(1000, 300, now_s=50.0)
    assert progress.line(300, 50.0) == "300/1,000 done"
    shown = progress.line(400, 90.0, {Status.ANSWERED: 397, Status.ENDPOINT_FAILURE: 3})
    assert shown == "400/1,000 done, 2.5/s, 4:00 to go, 3 endpoint_failure"


def test_the_rate_is_that_of_the_last_minutes() -> None:
    progress = Progress(100_000, 0, now_s=0.0)
    for second in range(1, 1001):
        progress.line(second * 10, float(second))
    for second in range(1001, 1001 + 2 * int(WINDOW_S)):
        shown = progress.line(10_000 + (second - 1000), float(second))
    assert ", 1/s, " in shown


def test_nothing_recorded_has_no_remaining_time() -> None:
    progress = Progress(10, 0, now_s=0.0)
    assert progress.line(0, 30.0) == "0/10 done"
