"""Balancing over servers: the next request goes to the one with the fewest in flight, of those that do not rest."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Endpoint:
    """A server and its state.

    Attributes:
        url: its base URL.
        in_flight: requests that wait for its reply.
        served: requests sent to it so far.
        failures: failures in a row.
        resting_until: monotonic time before which it is not asked.
        refused_forms: types of `response_format` that it has refused.
    """

    url: str
    in_flight: int = 0
    served: int = 0
    failures: int = 0
    resting_until: float = 0.0
    refused_forms: set[str] = field(default_factory=set)

    @property
    def takes_schema(self) -> bool:
        """False once it has refused a JSON schema for its reply."""
        return "json_schema" not in self.refused_forms

    @property
    def on_trial(self) -> bool:
        """True if it failed last and has a request in flight, whose outcome decides."""
        return self.failures > 0 and self.in_flight > 0


class EndpointPool:
    """Hands out endpoints and keeps away from those that fail, for a time that doubles with every failure in a row."""

    def __init__(self, urls: Sequence[str], first_pause_s: float, longest_pause_s: float) -> None:
        self.endpoints = tuple(Endpoint(url) for url in urls)
        self._first_pause_s = first_pause_s
        self._longest_pause_s = longest_pause_s

    async def take(self) -> Endpoint:
        """Next endpoint to ask, to be given back with `succeeded`, `failed` or `released`; waits while all rest.

        One that failed gets a single request when its rest is over, if there is another to ask meanwhile.
        """
        while True:
            now = time.monotonic()
            awake = [endpoint for endpoint in self.endpoints if endpoint.resting_until <= now]
            if awake:
                candidates = [endpoint for endpoint in awake if not endpoint.on_trial] or awake
                chosen = min(candidates, key=lambda endpoint: (endpoint.in_flight, endpoint.served))
                chosen.in_flight += 1
                chosen.served += 1
                return chosen
            wakes = min(endpoint.resting_until for endpoint in self.endpoints)
            await asyncio.sleep(max(wakes - now, 0.001))

    def succeeded(self, endpoint: Endpoint) -> None:
        """Notes that a usable reply came."""
        endpoint.in_flight -= 1
        endpoint.failures = 0
        endpoint.resting_until = 0.0

    def failed(self, endpoint: Endpoint, retry_after_s: float | None = None) -> None:
        """Notes that no usable reply came: the endpoint rests, as long as it asks or longer with every failure.

        The bound on a pause holds for both. Failures of requests that were sent before a pause began count once.
        """
        endpoint.in_flight -= 1
        now = time.monotonic()
        if endpoint.resting_until <= now:
            endpoint.failures += 1
        # drawn, so that workers that failed at once do not return at once; 30 keeps the power finite
        pause = self._first_pause_s * 2.0 ** min(endpoint.failures - 1, 30) * random.uniform(0.75, 1.25)
        if retry_after_s is not None:
            pause = retry_after_s
        endpoint.resting_until = max(endpoint.resting_until, now + min(pause, self._longest_pause_s))

    def released(self, endpoint: Endpoint) -> None:
        """Notes that the request was given up for a reason that is not the endpoint's."""
        endpoint.in_flight -= 1
