"""Which of several servers is asked next: of those that do not rest, the one with the fewest requests under way."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass
class Endpoint:
    """A server and how it fares.

    Attributes:
        url: its base URL.
        under_way: requests that wait for its reply.
        served: requests it was given so far.
        failures: failures in a row.
        resting_until: monotonic time before which it is not asked.
        takes_schema: whether it takes a JSON schema for its reply; it is believed to until it refuses one.
    """

    url: str
    under_way: int = 0
    served: int = 0
    failures: int = 0
    resting_until: float = 0.0
    takes_schema: bool = True

    @property
    def on_trial(self) -> bool:
        """Whether it failed last and is being asked: what becomes of that request says how it is."""
        return self.failures > 0 and self.under_way > 0


class EndpointPool:
    """Hands out endpoints and keeps away from those that fail, for a time that doubles with every failure in a row."""

    def __init__(self, urls: Sequence[str], first_pause_s: float, longest_pause_s: float) -> None:
        self.endpoints = tuple(Endpoint(url) for url in urls)
        self._first_pause_s = first_pause_s
        self._longest_pause_s = longest_pause_s

    async def take(self) -> Endpoint:
        """The next endpoint to ask, to be given back with `succeeded`, `failed` or `released`; waits while all rest.

        One that failed gets a single request when its rest is over, if there is another to ask meanwhile.
        """
        while True:
            now = time.monotonic()
            awake = [endpoint for endpoint in self.endpoints if endpoint.resting_until <= now]
            if awake:
                candidates = [endpoint for endpoint in awake if not endpoint.on_trial] or awake
                chosen = min(candidates, key=lambda endpoint: (endpoint.under_way, endpoint.served))
                chosen.under_way += 1
                chosen.served += 1
                return chosen
            wakes = min(endpoint.resting_until for endpoint in self.endpoints)
            await asyncio.sleep(max(wakes - now, 0.001))

    def succeeded(self, endpoint: Endpoint) -> None:
        """A usable reply came."""
        endpoint.under_way -= 1
        endpoint.failures = 0
        endpoint.resting_until = 0.0

    def failed(self, endpoint: Endpoint, retry_after_s: float | None = None) -> None:
        """None came: leave it alone for as long as it asks, or longer with every failure; never beyond the bound.

        Failures of requests that were sent before its pause began count once.
        """
        endpoint.under_way -= 1
        now = time.monotonic()
        if endpoint.resting_until <= now:
            endpoint.failures += 1
        pause = self._first_pause_s * 2.0 ** min(endpoint.failures - 1, 30) * random.uniform(0.75, 1.25)
        if retry_after_s is not None:
            pause = retry_after_s
        endpoint.resting_until = max(endpoint.resting_until, now + min(pause, self._longest_pause_s))

    def released(self, endpoint: Endpoint) -> None:
        """The request was given up for a reason that is not the endpoint's."""
        endpoint.under_way -= 1
