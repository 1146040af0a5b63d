"""Killing everything that belongs to a session, double-forked daemons included.

In a container a session owns a uid, so one `kill(-1)` made under that uid strikes all of its processes at once and
nothing else, however they were forked. Without uids of their own (`process` backend) sessions are found by walking
/proc, which a determined program can outrun: there it is a convenience, not a boundary.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from os import getpid, getuid, kill, waitpid
from pathlib import Path
from typing import Protocol

LOWEST_UID = 1_000
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER = 1, 4, 36
_WNOHANG = os.WNOHANG
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def adopt_orphans() -> None:
    """Make this process the parent of descendants whose own parent has died."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def forbid_inspection() -> None:
    """No ptrace and no /proc/PID/mem of this process, not even by others of its own uid."""
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def reap() -> list[tuple[int, int]]:
    """Collect every child that has ended, as (pid, wait status); never blocks."""
    ended: list[tuple[int, int]] = []
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = waitpid(-1, _WNOHANG)
            if pid == 0:
                break
            ended.append((pid, status))
    return ended


class Reach(Protocol):
    """How the head of a session gets at the other processes of the session."""

    def kill_others(self) -> None:
        """Kill every process of the session but the caller."""


class UidReach:
    """A session alone under its uid: the kernel's `kill(-1)` is exactly the session, in one step."""

    def __init__(self, uid: int) -> None:
        self._uid = uid

    def kill_others(self) -> None:
        if self._uid < LOWEST_UID or getuid() != self._uid:
            return  # under any other uid the same call would strike strangers
        with contextlib.suppress(ProcessLookupError):
            kill(-1, signal.SIGKILL)


class TreeReach:
    """A session found by its POSIX session id and by descent; needs `adopt_orphans` in the caller."""

    def __init__(self, leader: int) -> None:
        self._leader = leader

    def kill_others(self) -> None:
        kill_tree(self._leader, spare=getpid())


def kill_tree(leader: int, spare: int) -> None:
    """Kill the processes of POSIX session `leader` and their descendants, except `spare`."""
    for _ in range(20):  # orphans surface as their parents die, so look again until nothing is left
        victims = _members(leader, roots={spare}) - {spare}
        if not victims:
            return
        for pid in victims:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                kill(pid, signal.SIGKILL)
        reap()


def kill_descendants(spare: set[int]) -> None:
    """Kill every descendant of the caller except those in `spare`."""
    for _ in range(20):
        victims = _members(-1, roots={getpid()}) - {getpid()} - spare
        if not victims:
            return
        for pid in victims:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                kill(pid, signal.SIGKILL)
        reap()


def _members(leader: int, roots: set[int]) -> set[int]:
    parents: dict[int, int] = {}
    members = set(roots)
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError, ValueError):
            stat = (entry / "stat").read_text(encoding="ascii", errors="replace")
            state, parent, _group, session = stat.rpartition(")")[2].split()[:4]
            if state == "Z":
                continue
            parents[int(entry.name)] = int(parent)
            if int(session) == leader:
                members.add(int(entry.name))
    grown = True
    while grown:
        grown = False
        for pid, above in parents.items():
            if above in members and pid not in members:
                members.add(pid)
                grown = True
    return members & (set(parents) | roots)
