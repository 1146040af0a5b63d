"""Mailbox between the actor and the rollout workers for the weights of an update: a Ray actor with references only.

It imports nothing heavy: its process is up at once.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

IN_FLIGHT = 2
"""Buckets that may wait for a receiver: without a bound a slow one would fill the object store with the model."""


@dataclass(frozen=True)
class EndOfWeights:
    """End mark behind the last bucket, with the sender's `weight_stream.Chain` over all of them."""

    fingerprint: str


class Mailbox:
    """References to the buckets of one weight update, each until every receiver has taken it.

    At the end every receiver confirms that the weights it got are those sent, or that they differ.
    """

    def __init__(self, receivers: int) -> None:
        self._receivers = receivers
        self._changed = asyncio.Condition()
        self._start()

    def _start(self) -> None:
        self._items: list[Any] = []
        self._taken: list[int] = []
        self._equal: list[bool] = []

    async def begin(self) -> None:
        """Drops the previous update, in which nobody takes part any more."""
        async with self._changed:
            self._start()

    async def put(self, item: list[Any], timeout_s: float) -> None:
        """Adds an item, and waits for room while `IN_FLIGHT` items have not been taken by all receivers.

        `item` is a list of one ObjectRef (wrapped, so that Ray does not resolve it) or the end mark. Once a receiver
        has reported a difference nobody takes any more, and the item is dropped.

        Raises:
            TimeoutError: no room after `timeout_s`.
        """
        async with self._changed:
            # a difference also ends the wait: the sender learns of it from `confirmed`
            room = self._changed.wait_for(lambda: self._waiting() < IN_FLIGHT or not all(self._equal))
            await asyncio.wait_for(room, timeout_s)
            if not all(self._equal):
                return
            self._items.append(item)
            self._taken.append(0)
            self._changed.notify_all()

    def _waiting(self) -> int:
        return sum(taken < self._receivers for taken in self._taken)

    async def get(self, index: int, timeout_s: float) -> list[Any]:
        """Returns the item of this index, once it is there; raises `TimeoutError` after `timeout_s`."""
        async with self._changed:
            await asyncio.wait_for(self._changed.wait_for(lambda: index < len(self._items)), timeout_s)
            item = self._items[index]
            self._taken[index] += 1
            if self._taken[index] == self._receivers:
                self._items[index] = None  # lets the object store drop the bucket
                self._changed.notify_all()
            return item  # type: ignore[no-any-return]

    async def confirm(self, equal: bool) -> None:
        """Notes the result of a receiver: True where it got the weights that were sent."""
        async with self._changed:
            self._equal.append(equal)
            self._changed.notify_all()

    async def confirmed(self, timeout_s: float) -> list[bool]:
        """Returns the results, once all receivers have confirmed or one has reported a difference."""
        async with self._changed:
            complete = self._changed.wait_for(lambda: len(self._equal) == self._receivers or not all(self._equal))
            await asyncio.wait_for(complete, timeout_s)
            return self._equal
