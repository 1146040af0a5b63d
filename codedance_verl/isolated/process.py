"""Worker process that answers one JSON line with another, and is killed when an answer takes too long."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_READ_BYTES = 65_536
_MOST_REPLY_BYTES = 1 << 20
_END_SECONDS = 10.0
"""Longest wait for a killed process; one that the kernel cannot end is left to it."""


class NoResult(Exception):
    """Raised for a request without a result; the message is the reason."""


class NotStarted(NoResult):
    """Raised when the process did not come up; `permanent` where it said itself that it never will."""

    def __init__(self, reason: str, permanent: bool = False) -> None:
        super().__init__(reason)
        self.permanent = permanent


class WorkerProcess:
    """Handle of one process of the program `module`, which calls `isolated.loop.serve`; safe in several threads.

    It is started when first needed, and again after it was killed. A request waits for those before it; only its own
    run time counts against its limit. The process ends with this one, however this one ends.
    """

    def __init__(self, module: str, arguments: Sequence[str], start_s: float) -> None:
        """Starts nothing yet. `arguments` are the program's own; `start_s` is the longest wait for its first line."""
        self._module = module
        self._arguments = tuple(arguments)
        self._start_s = start_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline: int | None = None
        self._closed = False

    def ask(self, request: Mapping[str, Any], seconds: float) -> Any:
        """Returns the process's answer to a request.

        Raises:
            NoResult: no answer within `seconds`, or the process ended; `NotStarted` where it did not come up.
        """
        line = json.dumps(request).encode() + b"\n"
        with self._lock:
            process = self._running()
            deadline = time.monotonic() + seconds  # from here: neither the start nor earlier requests count
            try:
                _write(process, line, deadline)
                return json.loads(_read_line(process, deadline))
            except TimeoutError:
                self._kill()
                raise NoResult(f"no result within {seconds:g} s") from None
            except (EOFError, OSError, ValueError):
                raise NoResult(self._end()) from None

    def start(self) -> None:
        """Starts the process where none runs. Raises `NotStarted`."""
        with self._lock:
            self._running()

    def close(self) -> None:
        """Ends the process and the calls that wait for it; none is started again."""
        self._closed = True
        self._signal()  # without the lock: a request that is in flight holds it
        with self._lock:
            self._kill()

    @property
    def pid(self) -> int | None:
        """Id of the running process; None without one."""
        return self._process.pid if self._process is not None else None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._closed:
            raise NotStarted("it was closed")
        if self._process is not None and not _has_ended(self._process, 0.0):
            return self._process
        self._kill()
        try:
            self._process = self._spawn()
        except OSError as error:  # no process, descriptor or memory is left, for now
            raise NotStarted(f"{type(error).__name__}: {error}") from None
        try:
            greeting = json.loads(_read_line(self._process, time.monotonic() + self._start_s))
        except TimeoutError:
            self._kill()
            raise NotStarted(f"it does not start within {self._start_s:g} s") from None
        except (EOFError, OSError, ValueError):
            raise NotStarted(f"{self._end()} at its start") from None
        if "error" in greeting:
            self._kill()
            raise NotStarted(greeting["error"], permanent=True)
        return self._process

    def _spawn(self) -> subprocess.Popen[bytes]:
        lifeline, held = os.pipe()  # the kernel kills the process when nobody holds the other end any more
        try:
            process = self._popen(lifeline)
        except BaseException:
            os.close(held)
            raise
        finally:
            os.close(lifeline)
        self._lifeline = held
        assert process.stdin is not None
        os.set_blocking(process.stdin.fileno(), False)
        return process

    def _popen(self, lifeline: int) -> subprocess.Popen[bytes]:
        folders = [folder or str(Path.cwd()) for folder in [*sys.path, ""]]  # the working folder last, if not before
        return subprocess.Popen(
            [sys.executable, "-m", self._module, str(lifeline), *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(folders))},
            pass_fds=(lifeline,),
            start_new_session=True,  # a Ctrl-C is for the run, which then closes this
        )

    def _end(self) -> str:
        """Ends a process that has closed its output; returns how it ended."""
        process = self._process
        assert process is not None
        ended = _has_ended(process, 1.0)  # its own end, before ours: that one has the cause
        self._kill()
        status = process.returncode
        if not ended or status is None:
            return "the process closed its output"
        if status < 0:
            return f"the process was ended by {signal.Signals(-status).name}"
        return f"the process ended with exit code {status}"

    def _signal(self) -> None:
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)  # with all that it has started

    def _kill(self) -> None:
        process = self._process
        if process is None:
            return
        self._signal()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_SECONDS)
        self._process = None


def _has_ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """True when it ends in this time. It is not collected: its id names its group, all of which is to be killed."""
    until = time.monotonic() + seconds
    while True:
        try:
            if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return True
        except ChildProcessError:  # it has been collected
            return True
        if time.monotonic() >= until:
            return False
        time.sleep(0.01)


def _write(process: subprocess.Popen[bytes], line: bytes, deadline: float) -> None:
    """Writes a whole line to the process; raises `TimeoutError` where it is not taken in time."""
    assert process.stdin is not None
    left = memoryview(line)
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdin, selectors.EVENT_WRITE)
        while left:
            if not selector.select(max(deadline - time.monotonic(), 0.0)):
                raise TimeoutError
            left = left[os.write(process.stdin.fileno(), left) :]


def _read_line(process: subprocess.Popen[bytes], deadline: float) -> bytes:
    """Returns the next line that the process writes.

    Raises:
        TimeoutError: it does not come in time.
        EOFError: the process closed its output.
        ValueError: the line is longer than any answer may be.
    """
    assert process.stdout is not None
    line = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not line.endswith(b"\n"):
            if not selector.select(max(deadline - time.monotonic(), 0.0)):
                raise TimeoutError
            # nothing can follow the line: the process writes one answer a request, and requests wait for each other
            received = os.read(process.stdout.fileno(), _READ_BYTES)
            if not received:
                raise EOFError
            line += received
            if len(line) > _MOST_REPLY_BYTES:
                raise ValueError("the answer is too long")
    return line
