"""Runs `expression_worker` in a process of its own, which is killed when a comparison takes too long."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import selectors
import subprocess
import sys
import threading
import time

START_SECONDS = 120.0
"""Longest wait for sympy to be imported."""

_WORKER = "codedance_verl.grading.expression_worker"
_LONGEST_LINE = 4096


class NoResult(Exception):
    """The comparison ended without a result; says why in words."""


class ExpressionProcess:
    """One worker process, started when first needed and again after it was killed. Safe to use from several threads.

    A comparison waits for those before it; only its own run time counts against its limit.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def equal(self, given: str, truth: str, relative_tolerance: float, seconds: float) -> bool | None:
        """Whether two formulas in LaTeX are equal; None where the true one cannot be read.

        Raises:
            NoResult: no result within `seconds`, or the process ended.
        """
        asked = {"given": given, "truth": truth, "tolerance": relative_tolerance, "seconds": seconds}
        request = json.dumps(asked).encode() + b"\n"
        with self._lock:
            process = self._running()
            try:
                assert process.stdin is not None
                process.stdin.write(request)
                process.stdin.flush()
                answer = _read_line(process, seconds)
            except (NoResult, OSError) as error:
                self._kill()
                raise NoResult(str(error)) from None
        found: bool | None = json.loads(answer)["equal"]
        return found

    def close(self) -> None:
        """End the process, if there is one."""
        with self._lock:
            self._kill()

    @property
    def pid(self) -> int | None:
        """Of the running process; None without one."""
        return self._process.pid if self._process is not None else None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._kill()
        self._process = subprocess.Popen(
            [sys.executable, "-m", _WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            start_new_session=True,  # a Ctrl-C is for the run, which then closes this
        )
        try:
            _read_line(self._process, START_SECONDS)
        except NoResult as error:
            self._kill()
            raise NoResult(f"math-verify does not start ({error}); is it installed?") from None
        return self._process

    def _kill(self) -> None:
        if self._process is None:
            return
        with contextlib.suppress(OSError):
            self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
        self._process.wait()
        self._process = None


@functools.cache
def shared_process() -> ExpressionProcess:
    """The one of this Python process; ends with it."""
    process = ExpressionProcess()
    atexit.register(process.close)
    return process


def _read_line(process: subprocess.Popen[bytes], seconds: float) -> bytes:
    """The next line that the process writes; raises `NoResult` when there is none in time."""
    assert process.stdout is not None
    deadline = time.monotonic() + seconds
    line = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not line.endswith(b"\n"):
            if not selector.select(max(deadline - time.monotonic(), 0.0)):
                raise NoResult(f"no result within {seconds:g} s")
            received = os.read(process.stdout.fileno(), _LONGEST_LINE)
            if not received:
                raise NoResult("the comparing process ended")
            line += received
    return line
