"""Progress of an evaluation in a line: samples done, rate, remaining time, failures."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping

from codedance_verl.records.record import FAILURES, Status
from codedance_verl.runtime.progress import clock

WINDOW_S = 120.0
"""Seconds that the rate is taken over."""

_MARKS = 256


class Progress:
    """Rate of the last two minutes, of all processes that share the records.

    `total` is the number of samples, `done` those on record at the start, which count as done and not for the rate.
    """

    def __init__(self, total: int, done: int, now_s: float) -> None:
        self._total = total
        self._marks: deque[tuple[float, int]] = deque([(now_s, done)], maxlen=_MARKS)

    def line(self, done: int, now_s: float, statuses: Mapping[Status, int] | None = None) -> str:
        """Line at a time of a monotonic clock: `400/1,000 done, 2.5/s, 4:00 to go, 3 endpoint_failure`.

        `statuses` are samples on record by status; those of failures are shown.
        """
        # by the second mark: one that is as old as the window must stay, to measure from
        while len(self._marks) > 1 and now_s - self._marks[1][0] >= WINDOW_S:
            self._marks.popleft()
        since, before = self._marks[0]
        rate = (done - before) / (now_s - since) if now_s > since else 0.0
        # any closer, and a full deque would drop marks that are still inside the window
        if now_s - self._marks[-1][0] >= WINDOW_S / _MARKS:
            self._marks.append((now_s, done))
        parts = [f"{done:,}/{self._total:,} done"]
        if rate > 0:
            parts += [f"{rate:.3g}/s", f"{clock(max(self._total - done, 0) / rate)} to go"]
        failed = Counter(statuses or {})
        parts += [f"{failed[status]:,} {status}" for status in Status if status in FAILURES and failed[status]]
        return ", ".join(parts)
