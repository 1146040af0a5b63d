"""Main loop of a worker's program, the other side of `isolated.process`."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import select
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any

Handler = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Answers one request. Both are plain JSON."""


def serve(prepare: Callable[[], Handler]) -> None:
    """Answers requests until the input ends. The first argument of the program is the descriptor of its lifeline.

    `prepare` may import and check what it likes; its `ValueError` is sent to the other side as the reason why nothing
    can be asked. Standard input and output are taken away first, so that code that reads or prints does no harm.
    """
    _die_with_parent(int(sys.argv[1]))
    requests, replies = _take_standard_streams()
    try:
        answer = prepare()
    except ValueError as error:
        _send(replies, {"error": str(error)})
        return
    _send(replies, {"ready": True})
    with os.fdopen(requests, "rb") as lines:
        for line in lines:
            _send(replies, answer(json.loads(line)))


def limit(kind: int, most: int) -> None:
    """Sets a soft limit of this process (`resource.RLIMIT_...`), below the hard one that was found."""
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _die_with_parent(lifeline: int) -> None:
    """Makes the kernel kill this process, and all that it starts, when the other end of the pipe closes.

    Neither a thread nor the end of the input would do: code that never returns to Python holds both up.
    """
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())  # negative: the whole process group gets the signal
    fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    os.set_inheritable(lifeline, False)
    if select.select([lifeline], [], [], 0)[0]:  # closed before the signal was set up, which is then never sent
        sys.exit(1)


def _take_standard_streams() -> tuple[int, int]:
    """Returns descriptors of input and output, and puts /dev/null in their places, for C code too."""
    requests, replies = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):
        os.dup2(nothing, descriptor)
    os.close(nothing)
    return requests, replies


def _send(replies: int, value: Mapping[str, Any]) -> None:
    left = memoryview(json.dumps(value).encode() + b"\n")
    while left:
        left = left[os.write(replies, left) :]
