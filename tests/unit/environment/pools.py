"""A pool without containers that knows how many of its sessions are open."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Self


class CountingPool:
    """Pool and session in one; `admit` may refuse a session by raising."""

    def __init__(self) -> None:
        self.open_sessions = 0

    def admit(self, *images: bytes) -> None:
        """A session is asked for."""

    @contextlib.asynccontextmanager
    async def session(self, *images: bytes) -> AsyncIterator[Self]:
        self.admit(*images)
        self.open_sessions += 1
        try:
            yield self
        finally:
            self.open_sessions -= 1
