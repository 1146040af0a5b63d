"""Event loop of cells that await something at their top level; tasks are continued in the next such cell."""

from __future__ import annotations

from collections.abc import Coroutine
from os import getpid
from typing import Any

_loop: Any = None
_owner = 0


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Runs a coroutine to its end. A process that was forked since the last call gets a loop of its own."""
    global _loop, _owner
    import asyncio

    if _loop is None or _loop.is_closed() or _owner != getpid():
        _loop, _owner = asyncio.new_event_loop(), getpid()
        asyncio.set_event_loop(_loop)
    return _loop.run_until_complete(coroutine)
