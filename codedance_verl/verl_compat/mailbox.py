"""Where the actor leaves the weights of an update for the rollout workers: a Ray actor that holds references only.

It imports nothing heavy: its process is up at once.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

IN_FLIGHT = 2
"""Buckets that may wait for a receiver; a slow one must not have the whole model pile up in the object store."""


@dataclass(frozen=True)
class EndOfWeights:
    """What follows the last bucket: the sender's `weight_stream.Chain` over all of them."""

    fingerprint: str


class Mailbox:
    """Holds references to the buckets of one weight update until every receiver has taken each of them.

    In the end every receiver says whether it has got what was sent.
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
        """Forget the update before; nobody takes part in that any more."""
        async with self._changed:
            self._start()

    async def put(self, item: list[Any], timeout_s: float) -> None:
        """`item` is a one-element list with an ObjectRef (wrapped, so that Ray does not resolve it) or the end mark.

        Waits while `IN_FLIGHT` items have not been taken by all; raises `TimeoutError` after `timeout_s`. Once a
        receiver said that it got something else, nobody takes any more: the item is dropped.
        """
        async with self._changed:
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
        """The item of this index, once it is there; raises `TimeoutError` after `timeout_s`."""
        async with self._changed:
            await asyncio.wait_for(self._changed.wait_for(lambda: index < len(self._items)), timeout_s)
            item = self._items[index]
            self._taken[index] += 1
            if self._taken[index] == self._receivers:
                self._items[index] = None  # lets the object store drop the bucket
                self._changed.notify_all()
            return item  # type: ignore[no-any-return]

    async def confirm(self, equal: bool) -> None:
        """A receiver says whether it got what was sent."""
        async with self._changed:
            self._equal.append(equal)
            self._changed.notify_all()

    async def confirmed(self, timeout_s: float) -> list[bool]:
        """What the receivers said, once all of them have, or one of them that it differs."""
        async with self._changed:
            said = self._changed.wait_for(lambda: len(self._equal) == self._receivers or not all(self._equal))
            await asyncio.wait_for(said, timeout_s)
            return self._equal
