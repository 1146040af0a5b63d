"""Runner of a session: runs its cells, and leaves a checkpoint before each, a sleeping copy of the process.

The checkpoint is forked when a cell has come: so an idle session is one process, and after the last cell, which nobody
knows to be the last, none is forked. Only where memory is short it is forked right after the cell before: what makes
the kernel kill the runner of an idle session then leaves its variables. And outside the image, where a fork copies
large page tables (`memory.py`): that would be time of the cell.

A cell that succeeds makes its checkpoint obsolete; the runner kills it, with whatever else the cell left running. When
a cell fails, crashes or is stopped, the supervisor wakes the checkpoint instead: that kills
everything of the session but the supervisor and itself, and is the runner from then on, with the variables as they
were. (With `keep` an exception counts as an end like any other.) Files in the working directory are not rolled back.

The checkpoint sleeps in C: it executes no Python until it is woken, which would cost it, and the runner, a copy of
every page that the interpreter touches.
"""

from __future__ import annotations

import contextlib
import random
import signal
import socket
import sys
from os import _exit, fork, getpid, listdir, waitpid
from time import sleep
from typing import Any, NoReturn

from . import cell, display, forks, memory, output, room, wire
from .process_kill import reap
from .room import NoRoom
from .session import Links, Session
from .wire import Message

FORK_PAUSES = (0.01, 0.03, 0.1, 0.3)
_FORK_TAKES_LONG = not memory.HELPER.exists()
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)


def serve(session: Session, links: Links) -> NoReturn:
    """Runs cells until the supervisor closes the channel. Continues in a checkpoint whenever one is woken."""
    obsolete = checkpoint = 0
    while True:
        try:
            if _FORK_TAKES_LONG or room.is_memory_short():
                checkpoint = _leave_checkpoint(session, links)
            request = wire.receive(links.channel)
            _collect(obsolete)
            # In a checkpoint that was woken the next request is another, and wants a checkpoint of its own.
            while checkpoint == 0:
                if (checkpoint := _leave_checkpoint(session, links)) == 0:
                    request = wire.receive(links.channel)
            error = run_cell(session, links, request)
            # The supervisor wakes the checkpoint, which has the variables as they were.
            if error is not None and not session.keep_on_error:
                _exit(0)
            wire.receive(links.channel)  # the word that the cell counts: until then its checkpoint is needed
        except (EOFError, OSError, wire.WireError, KeyboardInterrupt):  # the session, or this runner, is given up
            _exit(0)
        if _has_threads():
            _continue_in_fork(links.channel)
        _disarm_timers()
        # The obsolete checkpoint and whatever the cell left running.
        session.killer.kill_others()
        obsolete, checkpoint = checkpoint, 0
        reap()


def _leave_checkpoint(session: Session, links: Links) -> int:
    """Forks a checkpoint. Returns its pid at once in the runner, and 0, much later, in a checkpoint that was woken."""
    wake = links.wake.fileno()
    pid = _fork()
    if pid > 0:
        return pid
    forks.sleep_until_woken(wake)
    session.killer.kill_others()
    session.cells += 1
    names = [name for name in session.namespace if name not in session.given_names and not name.startswith("_")]
    try:
        wire.send(links.wake, {"runner": getpid(), "names": sorted(map(str, names))[:30]})
    except OSError:
        _exit(0)
    return 0


def _collect(obsolete: int) -> None:
    """Waits for the end of the last checkpoint, so that a cell which waits for its own children does not meet it."""
    if obsolete:
        with contextlib.suppress(ChildProcessError):  # it has been collected
            waitpid(obsolete, 0)


def _fork() -> int:
    """Forks, and waits while the processes of a cell that was killed still count."""
    for pause_s in FORK_PAUSES:
        with contextlib.suppress(BlockingIOError):
            return forks.fork()
        sleep(pause_s)
    _exit(1)


def run_cell(session: Session, links: Links, request: Message) -> Message | None:
    """Runs one cell and sends the supervisor its end; returns the error, if any.

    A cell whose image files find no room is not run, and does not count.
    """
    output.redirect(links.capture)
    mark = {"cell": request["cell"]}
    try:
        session.files.provide(str(request["code"]))
    except NoRoom as full:
        wire.send(links.channel, mark | {"lacks": full.lacks})
        return None
    except Exception:
        pass  # an earlier cell can have replaced what this calls, or have used up its own memory
    session.cells += 1
    shown = display.Display(session.limits, lambda message: wire.send(links.channel, mark | message))
    display.activate(shown)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the supervisor's request to stop
    error = cell.run_cell(str(request["code"]), session.cells, session.namespace, shown)
    # Before the end is reported: the supervisor reads the output then.
    _flush(sys.stdout)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    wire.send(links.channel, mark | {"done": {"error": error, "truncated": shown.truncated}})
    return error


def _disarm_timers() -> None:
    """Stops a timer that a cell has set: it must not end the runner while it has no checkpoint, between cells."""
    for timer in _TIMERS:
        signal.setitimer(timer, 0)


def _has_threads() -> bool:
    return len(listdir("/proc/self/task")) > 1  # noqa: PTH208  a cell can have replaced what pathlib uses


def _continue_in_fork(channel: socket.socket) -> None:
    """Ends threads that a cell left running: a fork has none. The fork kills the process it came from."""
    # The fork handlers reseed `random`; a seed that a cell has set must hold.
    seeds = random.getstate()
    if fork() != 0:
        while True:
            signal.pause()
    random.setstate(seeds)
    wire.send(channel, {"runner": getpid()})


def _flush(stream: Any) -> None:
    with contextlib.suppress(OSError, ValueError):  # the cell may have closed its stdout: nothing is left to save then
        stream.flush()
