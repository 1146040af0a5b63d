"""Work over pieces by a bounded pool of processes, with results in the order of the pieces."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from codedance_verl.errors import UserError

MOST_WORKERS = 8

Item = TypeVar("Item")
Result = TypeVar("Result")


def default_workers() -> int:
    """Processes where none are asked for: one a core that this process may use, at most 8."""
    return min(MOST_WORKERS, len(os.sched_getaffinity(0)))


def in_order(work: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    """Yields the result of each item in order.

    At most `workers + 1` items are in hand, so that memory does not grow with their number. A single worker or item
    needs no further process. `work` and its results must be picklable; results should be small.

    Raises:
        UserError: a process was killed; or what `work` raises.
    """
    if workers < 1:
        raise UserError(f"--workers is {workers}; must be 1 or more")
    workers = min(workers, len(items))
    if workers <= 1:
        yield from map(work, items)
        return
    # spawn: a fork would copy the threads' locks of pyarrow in whatever state they are
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise UserError(
                "a worker process was killed, as the system does where memory runs out; start the command again with "
                "fewer --workers: what is done stays done"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Ends this process when the one that started it is gone, killed or not: it would go on writing parts."""
    threading.Thread(target=_wait_for_parent, name="parent", daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
