"""User functions, named by their dotted path and called in processes of their own (`function_worker`)."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BeforeValidator

from codedance_verl.errors import UserError
from codedance_verl.isolated.process import NoResult, NotStarted, WorkerProcess

START_SECONDS = 60.0
"""Longest wait for the import of the function's module."""

MAX_FAULTS_IN_A_ROW = 100
"""Failed calls in a row after which the function is given up: what is broken does not mend itself."""

_WORKER = "codedance_verl.isolated.function_worker"

T = TypeVar("T")


class Fault(Exception):
    """Raised for a call without a usable result; one line that begins with the dotted key and the function."""


def check_path(value: object) -> str:
    """Returns the dotted path of a function, `package.module:function`; nothing is imported.

    Raises `ValueError` for anything else.
    """
    if isinstance(value, str):
        module, colon, name = value.partition(":")
        if colon and all(part.isidentifier() for part in [*module.split("."), *name.split(".")]):
            return value
    raise ValueError("must be package.module:function, such as my_grader:grade, or null for none")


FunctionPath = Annotated[str, BeforeValidator(check_path)]
"""Type of a field that names a function."""


class IsolatedFunction(Generic[T]):
    """Caller of one user function; what it raises, returns or does to its process costs that call alone.

    A process is started when first needed, and again after one was lost. Use it from one event loop.
    """

    def __init__(
        self,
        key: str,
        path: str,
        parameters: Sequence[str],
        read: Callable[[Any], T],
        *,
        seconds: float,
        processes: int = 1,
        most_faults: int = MAX_FAULTS_IN_A_ROW,
    ) -> None:
        """Starts nothing yet.

        Args:
            key: dotted key of the setting that names the function, for messages.
            path: as `check_path` gives it.
            parameters: names of what the function takes, in order, for messages.
            read: makes the result of what the function returned, a JSON value with lists for tuples; raises
                `ValueError` with the reason for what is no result.
            seconds: run time of one call; waiting for a free process is not in it.
            processes: calls at once.
            most_faults: calls in a row that may fail before the function is given up.
        """
        self.name = f"{key}={path}"
        self._parameters = tuple(parameters)
        self._read = read
        self._seconds = seconds
        self._most_faults = most_faults
        arguments = (path, str(len(self._parameters)))
        self._processes = [WorkerProcess(_WORKER, arguments, START_SECONDS) for _ in range(processes)]
        self._idle: queue.SimpleQueue[WorkerProcess] = queue.SimpleQueue()
        for process in self._processes:
            self._idle.put(process)
        self._threads = ThreadPoolExecutor(processes, thread_name_prefix="function")
        self._lock = threading.Lock()
        self._in_a_row = 0
        self.given_up = ""
        """Reason, in one line, why no call is made any more; empty while they are made."""

    def check(self) -> None:
        """Raises `UserError`, one line, where the function cannot be imported or called with its arguments."""
        try:
            self._processes[0].start()
        except NotStarted as error:
            raise UserError(
                f"{self.name}: {error}; it must be package.module:function, found from the folder of the command, on "
                f"PYTHONPATH or installed, and take ({', '.join(self._parameters)})"
            ) from None

    async def call(self, *arguments: Any) -> T:
        """Returns the result for these arguments, which must be plain JSON.

        Raises:
            Fault: there is none: an exception, a process that ended, nothing in time, no result of the kind asked for.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._call, arguments)

    def close(self) -> None:
        """Ends processes and threads; calls in flight end with a `Fault`."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in self._processes:
            process.close()

    def _call(self, arguments: tuple[Any, ...]) -> T:
        if self.given_up:
            raise Fault(self.given_up)
        process = self._idle.get()  # there are as many threads as processes
        try:
            reply = process.ask({"arguments": arguments}, self._seconds)
            if "error" in reply:
                raise ValueError(reply["error"])
            found = self._read(reply["value"])
        except (NoResult, ValueError) as error:
            reason = f"it cannot be started: {error}" if isinstance(error, NotStarted) else str(error)
            self._count(reason, decisive=isinstance(error, NotStarted) and error.permanent)
            raise Fault(f"{self.name}: {reason}") from None
        finally:
            self._idle.put(process)
        with self._lock:
            self._in_a_row = 0
        return found

    def _count(self, reason: str, decisive: bool) -> None:
        with self._lock:
            self._in_a_row += 1
            if decisive:
                self.given_up = f"{self.name}: given up: {reason}"
            elif self._in_a_row >= self._most_faults:
                failed = f"{self._in_a_row} failed calls in a row"
                self.given_up = f"{self.name}: given up after {failed}, the last: {reason}"


def check_all(functions: Iterable[IsolatedFunction[Any]]) -> None:
    """Checks every function; raises `UserError` with a line for each that cannot be imported or called."""
    wrong = []
    for function in functions:
        try:
            function.check()
        except UserError as error:
            wrong.append(str(error))
    if wrong:
        raise UserError("\n".join(wrong))
