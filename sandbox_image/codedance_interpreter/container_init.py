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
import stat
import time
from pathlib import Path
from typing import NoReturn

from . import forks, limits, process_kill, wire
from .supervisor import socket_of_ended_children
from .wire import Message
from .zygote import PRELOADS, InterpreterOptions, connect, run

ZYGOTE_STARTS = 5
KILL_SECONDS = 10
FORK_RACE_SECONDS = 0.005


class ContainerInit:
    """Container init's state: the connection to the host, the zygote's pid, and the killers at work."""

    def __init__(self, options: InterpreterOptions) -> None:
        self._options = options
        self._control = connect(options, {"role": "init", "uid_span": _uid_span()})
        self._zygote = 0
        self._starts = 0
        self._killers: dict[int, str] = {}

    def serve(self, wakeup: socket.socket) -> NoReturn:
        """Answers the host until it closes the connection. `wakeup` becomes readable when a child has ended."""
        self._start_zygote()
        while True:
            ready, _, _ = select.select([self._control, wakeup], [], [])
            if wakeup in ready:
                with contextlib.suppress(BlockingIOError):
                    wakeup.recv(4096)
                self._reap()
            if self._control in ready:
                try:
                    self._handle(wire.receive(self._control))
                except (EOFError, OSError, wire.WireError):
                    self._leave()

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
            elif pid in self._killers:
                wire.send(self._control, {"op": "killed", "session": self._killers.pop(pid)})

    def _kill(self, request: Message) -> None:
        """Ends everything of one session in a child, so that a slow clean-up holds nobody up; its end is the answer."""
        pid = forks.fork()
        if pid:
            self._killers[pid] = request["session"]
            return
        self._control.close()
        # A clean-up that hangs is ended by the signal, and the host still gets its answer.
        signal.alarm(KILL_SECONDS)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        try:
            if self._options.own_uids:
                _kill_as(int(request["uid"]), self._options.root)
            elif int(request["leader"]) > 1:
                process_kill.kill_session(int(request["leader"]))
                shutil.rmtree(Path(self._options.root) / request["session"], ignore_errors=True)
        finally:
            os._exit(0)

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


def _kill_as(uid: int, root: str) -> None:
    """Kills all of a session, then removes what it left in the shared folders. The caller takes on its uid for good."""
    if uid < process_kill.LOWEST_UID:
        return
    _become(uid, saved=0)
    for pause_s in (0.0, FORK_RACE_SECONDS):  # the second strikes what was just being forked
        time.sleep(pause_s)
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
    os.seteuid(0)
    # As root, which alone may list the folder; removed as the session, so that links lead nowhere else.
    leavings = _owned_by(uid, root)
    _become(uid, saved=uid + 1)
    for path in leavings:
        _remove(path)


def _become(uid: int, saved: int) -> None:
    """Takes the effective uid of a session but another real one; for good, unless the `saved` id is 0.

    A signal is permitted by an id of the sender that is the real one of the target. So the session, which may be
    sending kill(-1) as well, cannot strike back, as it cannot strike its supervisor, which has the same ids.
    """
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid + 1, uid, saved)


def _owned_by(uid: int, top: str) -> list[str]:
    found = []
    with contextlib.suppress(OSError), os.scandir(top) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.stat(follow_symlinks=False).st_uid == uid:
                    found.append(entry.path)
    return found


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        if stat.S_ISDIR(os.lstat(path).st_mode):
            shutil.rmtree(path, ignore_errors=True)
        else:
            Path(path).unlink()


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
    if os.getpid() == 1:
        _part_sessions(given.root)
    else:
        process_kill.adopt_orphans()
    ContainerInit(InterpreterOptions(given.socket, given.name, given.root, given.own_uids, given.preload)).serve(wakeup)


if __name__ == "__main__":
    main()
