"""Killing of everything that belongs to a session, double-forked daemons included.

In a container a session owns a uid, so one `kill(-1)` made under that uid strikes all of its processes at once and
nothing else, however they were forked. Without uids of their own (`process` backend) processes are found by descent,
which a determined program can outrun: there it is a convenience, not a boundary.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Callable, Iterator
from os import getpid, getuid, kill, waitpid
from pathlib import Path
from typing import Protocol

LOWEST_UID = 1_000
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER = 1, 4, 36  # of <linux/prctl.h>
_WNOHANG = os.WNOHANG
_ROUNDS = 20  # a program that forks faster than it is killed outruns them (no boundary here)
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    """Has the kernel kill this process when its parent ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def adopt_orphans() -> None:
    """Makes this process the parent of descendants whose own parent has died."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def forbid_inspection() -> None:
    """Forbids ptrace and /proc/PID/mem of this process, also to others of its own uid."""
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def reap() -> list[tuple[int, int]]:
    """Collects every child that has ended, as (pid, wait status); never blocks."""
    ended: list[tuple[int, int]] = []
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = waitpid(-1, _WNOHANG)
            if pid == 0:
                break
            ended.append((pid, status))
    return ended


class ProcessKiller(Protocol):
    """Way in which a process of a session kills the others."""

    def kill_others(self) -> None:
        """Kills every process of the session but the caller and the supervisor."""


class KillByUid:
    """Killer by uid, where runner and cells are alone under one: the kernel's `kill(-1)` strikes just them, at once."""

    def __init__(self, uid: int) -> None:
        self._uid = uid

    def kill_others(self) -> None:
        if self._uid < LOWEST_UID or getuid() != self._uid:
            return  # under any other uid the same call would strike other sessions, or the host
        with contextlib.suppress(ProcessLookupError):
            kill(-1, signal.SIGKILL)


class KillTree:
    """Killer by descent, without uids: it strikes all that descends from the supervisor, which adopts orphans."""

    def __init__(self, supervisor: int) -> None:
        self._supervisor = supervisor

    def kill_others(self) -> None:
        _kill_all(lambda: descendants(self._supervisor) - {getpid()})


@contextlib.contextmanager
def acting_as(uid: int) -> Iterator[None]:
    """Gives root the effective ids of a session for the block, and another real one.

    A signal is permitted by an id of the sender that is the real one of the target. So the session, which may be
    sending kill(-1) as well, cannot strike back, as it cannot strike its supervisor, which has the same ids. What an
    equal effective id would allow it, to change priority and cores, no session may do to another process
    (`seccomp.json`).
    """
    os.setresgid(uid, uid, 0)
    os.setresuid(uid + 1, uid, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)


def kill_uid(uid: int) -> None:
    """Kills every process of a session, its supervisor included. For root, which has to be no process of its own."""
    if uid < LOWEST_UID:
        return
    with acting_as(uid), contextlib.suppress(ProcessLookupError):
        kill(-1, signal.SIGKILL)


def kill_session(leader: int) -> None:
    """Kills the processes of the POSIX session `leader`, and all that descend from them."""
    _kill_all(lambda: {pid for member in _session_members(leader) for pid in (member, *descendants(member))})


def kill_descendants() -> None:
    """Kills everything that descends from the caller."""
    _kill_all(lambda: descendants(getpid()))


def descendants(pid: int) -> set[int]:
    """Returns the children of `pid`, their children, and so on, as /proc shows them now."""
    found: set[int] = set()
    pending = [pid]
    while pending:
        for child in _children(pending.pop()):
            if child not in found:
                found.add(child)
                pending.append(child)
    return found


def _kill_all(find: Callable[[], set[int]]) -> None:
    """Kills what `find` returns until it returns nothing new: orphans appear when their parents have died."""
    struck: set[int] = set()
    for _ in range(_ROUNDS):
        victims = find() - struck
        if not victims:
            return
        for pid in victims:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                kill(pid, signal.SIGKILL)
        struck |= victims


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError, ValueError):
        # A child belongs to the thread that forked it.
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text(encoding="ascii").split())
    return found


def _session_members(leader: int) -> list[int]:
    members = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError):
                stat = (entry / "stat").read_text(encoding="ascii", errors="replace")
                # Behind the command, which may itself hold spaces and brackets.
                state, _parent, _group, session = stat.rpartition(")")[2].split()[:4]
                if state != "Z" and int(session) == leader:
                    members.append(int(entry.name))
    return members
