"""Starts a command in a process group of its own, and ends it with everything it started, in bounded time."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import psutil

GRACE_S = 20.0
KILL_S = 10.0
_PR_SET_PDEATHSIG = 1
_ENGINE = ("dockerd", "containerd", "docker-proxy", "docker-init")
"""A Docker engine that a stage started serves the whole machine and is left running."""


class ProcessTree:
    """A running command and what descends from it, also what outlives it or leaves its group."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str], folder: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=dict(environment),
                # a group of its own: it can be ended whole, and Ctrl-C in the terminal reaches the driver alone
                start_new_session=True,
                preexec_fn=_end_with_parent(),
            )
        self.pid = self._popen.pid
        self.started = _created(self.pid)
        self._seen: set[psutil.Process] = set()

    def wait(self, seconds: float) -> int | None:
        """Exit code, negative for a signal; None if it still runs after `seconds`."""
        try:
            return self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def look(self) -> None:
        """Remembers the descendants there are now; those that are orphaned later are found again."""
        self._seen = {process for process in self._seen if _alive(process)} | descendants(self.pid)

    def end(self, grace_s: float = GRACE_S) -> None:
        """Asks everything to stop, then kills what is left. Returns within `grace_s` + KILL_S."""
        self.look()
        end_processes(group_members(self.pid) | self._seen, grace_s)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(KILL_S)


def end_leftover(pid: int, started: float, grace_s: float = GRACE_S) -> bool:
    """Ends the command of a driver that was killed; `started` tells it from a later process of the same number.

    Members of its process group are ended even if the command itself is gone. True if there was anything to end.
    """
    # a second of slack: creation times are rounded to ticks of the clock
    members = {process for process in group_members(pid) if process.create_time() >= started - 1}
    if (created := _created(pid)) is not None and abs(created - started) < 1:
        members |= descendants(pid)
    end_processes(members, grace_s)
    return bool(members)


def group_members(group: int) -> set[psutil.Process]:
    """Processes of a process group, zombies left out."""
    return _matching(lambda process: os.getpgid(process.pid) == group)


def descendants(pid: int) -> set[psutil.Process]:
    """Everything that descends from a process, but for a Docker engine and what that started."""
    try:
        children = psutil.Process(pid).children()
    except psutil.Error:
        return set()
    found: set[psutil.Process] = set()
    for child in children:
        if not _is_engine(child):
            found |= {child} | descendants(child.pid)
    return found


def end_processes(processes: Iterable[psutil.Process], grace_s: float) -> None:
    """SIGTERM, then SIGKILL to those that are left after `grace_s`."""
    # the engine is left: other programs of this machine may use it
    alive = [process for process in processes if _alive(process) and not _is_engine(process)]
    _send(alive, signal.SIGTERM)
    _, alive = _wait(alive, grace_s)
    _send(alive, signal.SIGKILL)
    _wait(alive, KILL_S)


def _send(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)  # psutil checks that the number was not given to another process since


def _wait(processes: Sequence[psutil.Process], seconds: float) -> tuple[list[psutil.Process], list[psutil.Process]]:
    """(gone, alive) after at most `seconds`; a zombie is gone."""
    deadline = time.monotonic() + seconds
    while True:
        alive = [process for process in processes if _alive(process)]
        if not alive or time.monotonic() >= deadline:
            return [process for process in processes if process not in alive], alive
        time.sleep(0.1)


def _matching(wanted: Callable[[psutil.Process], bool]) -> set[psutil.Process]:
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if wanted(process) and _alive(process):
                found.add(process)
    return found


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _is_engine(process: psutil.Process) -> bool:
    try:
        return str(process.name()).startswith(_ENGINE)
    except psutil.Error:
        return False


def _created(pid: int) -> float | None:
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def _end_with_parent() -> Callable[[], None] | None:
    """Runs in the child before the command: SIGTERM when the driver dies, be it by kill -9. Linux only."""
    if not sys.platform.startswith("linux"):
        return None
    libc, parent = ctypes.CDLL(None, use_errno=True), os.getpid()

    def arrange() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before the call above
            os._exit(1)

    return arrange
