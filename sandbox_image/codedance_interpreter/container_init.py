"""Container init: PID 1, small, so that it forks cheaply and is the last process that memory pressure hits.

It starts the zygote (again, if it dies), reaps every orphan, kills all that belongs to a session when the host asks,
and ends, and the container with it, as soon as the host's socket closes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import shutil
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NoReturn

from . import forks, leavings, limits, process_kill, wire
from .host_connection import InterpreterOptions, connect
from .supervisor import socket_of_ended_children
from .wire import Message
from .zygote import PRELOADS, run

ZYGOTE_STARTS = 5
REMOVAL_SECONDS = 10
CELL_NICENESS = 5
"""Niceness of cells in a container: beside those that spin, what stops them and opens sessions gets three times their
share. On a host it would count against everything else that runs there."""

FORK_RACE_SECONDS = 0.005


class ContainerInit:
    """Container init's state: the connection to the host, the zygote's pid, and the sessions that are being ended.

    `struck` are sessions killed once, each with the time at which it is due to be killed again, and its uid; `removers`
    are children that remove much, by pid with the session each works for.
    """

    def __init__(self, options: InterpreterOptions) -> None:
        self._options = options
        self._control = connect(options, {"role": "init", "uid_span": _uid_span()})
        self._zygote = 0
        self._starts = 0
        self._struck: deque[tuple[float, str, int]] = deque()
        self._removers: dict[int, str] = {}

    def serve(self, wakeup: socket.socket) -> NoReturn:
        """Answers the host until it closes the connection. `wakeup` becomes readable when a child has ended."""
        self._start_zygote()
        while True:
            wait_s = max(self._struck[0][0] - time.monotonic(), 0.0) if self._struck else None
            ready, _, _ = select.select([self._control, wakeup], [], [], wait_s)
            if wakeup in ready:
                with contextlib.suppress(BlockingIOError):
                    wakeup.recv(4096)
                self._reap()
            if self._control in ready:
                try:
                    self._handle(wire.receive(self._control))
                except (EOFError, OSError, wire.WireError):
                    self._leave()
            if self._struck and self._struck[0][0] <= time.monotonic():
                self._strike_again()

    def _handle(self, request: Message) -> None:
        if request["op"] == "kill":
            self._kill(request)
        elif request["op"] == "ping":
            wire.send(self._control, {"op": "pong", "memory_bytes": limits.resident_bytes()})

    def _start_zygote(self) -> None:
        # A zygote that dies again and again has a cause in the container: the host gets another container.
        if self._starts == ZYGOTE_STARTS:
            self._leave()
        self._starts += 1
        self._zygote = os.fork()
        if self._zygote == 0:
            self._control.close()
            # The zygote has signals of its own: its children must not wake PID 1.
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            process_kill.die_with_parent()
            try:
                run(self._options)
            except BaseException as error:
                os.write(2, f"zygote: {type(error).__name__}: {error}\n".encode())
            os._exit(1)

    def _reap(self) -> None:
        for pid, _status in process_kill.reap():
            if pid == self._zygote:
                time.sleep(0.1)  # the cause may be brief, a memory peak for one
                self._start_zygote()
            elif pid in self._removers:
                self._confirm(self._removers.pop(pid))

    def _kill(self, request: Message) -> None:
        """Ends everything of one session: with uids of their own by a signal now, and another a little later."""
        session, uid, leader = str(request["session"]), int(request["uid"]), int(request["leader"])
        if self._options.own_uids:
            process_kill.kill_uid(uid)
            self._struck.append((time.monotonic() + FORK_RACE_SECONDS, session, uid))
        else:
            self._in_child(session, lambda: _kill_tree(leader, f"{self._options.root}/{session}"))

    def _strike_again(self) -> None:
        """Strikes what was just being forked, then removes what the sessions left; one look at `root` serves all."""
        now, due = time.monotonic(), []
        while self._struck and self._struck[0][0] <= now:
            due.append(self._struck.popleft()[1:])
        for _, uid in due:
            process_kill.kill_uid(uid)
        left = leavings.found({uid for _, uid in due}, self._options.root)
        for session, uid in due:
            if left is not None and leavings.remove_little(uid, left.get(uid, [])):
                self._confirm(session)
            else:
                self._in_child(session, partial(_remove_as, uid, self._options.root))

    def _in_child(self, session: str, work: Callable[[], None]) -> None:
        """Does what may take long in a child, whose end is the answer to the host."""
        pid = forks.fork()
        if pid:
            self._removers[pid] = session
            return
        self._control.close()
        # A clean-up that hangs is ended by the signal, and the host still gets its answer.
        signal.alarm(REMOVAL_SECONDS)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        try:
            work()
        finally:
            os._exit(0)

    def _confirm(self, session: str) -> None:
        wire.send(self._control, {"op": "killed", "session": session})

    def _leave(self) -> NoReturn:
        if os.getpid() != 1:  # as PID 1 its end takes all other processes along
            process_kill.kill_descendants()
            shutil.rmtree(self._options.root, ignore_errors=True)
        os._exit(0)


def _uid_span() -> int:
    """Returns the largest uid this container may give away, plus one (below 2**32 with user namespaces)."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        first, _outside, length = Path("/proc/self/uid_map").read_text(encoding="ascii").splitlines()[0].split()
        return int(first) + int(length)
    return 1 << 16


def _part_sessions(root: str) -> None:
    """Lets sessions make their folders in `root` without seeing those of others; they share nothing else."""
    with contextlib.suppress(OSError):
        Path(root).chmod(0o1733)
    with contextlib.suppress(OSError):  # like /tmp in the image: every process finds its own working directory there
        Path("/dev/shm").symlink_to("/proc/self/cwd")
    with contextlib.suppress(OSError):
        Path("/dev/mqueue").chmod(0o755)  # what is made there outlives its session


def _kill_tree(leader: int, directory: str) -> None:
    if leader > 1:
        process_kill.kill_session(leader)
        shutil.rmtree(directory, ignore_errors=True)


def _remove_as(uid: int, root: str) -> None:
    """Removes what a session left in the shared folders. The caller takes on its uid for good."""
    if uid < process_kill.LOWEST_UID:
        return
    # As root, which alone may list the folder; removed as the session, so that links lead nowhere else.
    paths = leavings.found({uid}, root, most=None) or {}
    os.setresgid(uid, uid, uid)
    os.setresuid(uid + 1, uid, uid + 1)
    leavings.remove_all(paths.get(uid, []))


def main() -> None:
    parser = argparse.ArgumentParser(description="Sandbox interpreter; started by the host side only.")
    parser.add_argument("--socket", required=True, help="unix socket of the host to connect out to")
    parser.add_argument("--name", required=True, help="name under which the host knows this interpreter")
    parser.add_argument("--root", required=True, help="directory that holds the sessions' working directories")
    parser.add_argument("--own-uids", action="store_true", help="give every session a uid of its own (needs root)")
    parser.add_argument("--preload", choices=sorted(PRELOADS), default="light", help="libraries to import beforehand")
    given = parser.parse_args()
    wakeup = socket_of_ended_children()
    # PID 1 ignores signals that it does not handle: without this `docker stop` would wait for its timeout.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if given.own_uids:
        os.setgroups([])
    if os.getpid() == 1:
        _part_sessions(given.root)
    else:
        process_kill.adopt_orphans()
    niceness = CELL_NICENESS if os.getpid() == 1 else 0
    options = InterpreterOptions(given.socket, given.name, given.root, given.own_uids, given.preload, niceness)
    ContainerInit(options).serve(wakeup)


if __name__ == "__main__":
    main()
