"""Process for `expression_worker`, which is killed when a comparison takes too long: sympy cannot be interrupted."""

from __future__ import annotations

import atexit
import functools

from codedance_verl.isolated.process import NoResult, NotStarted, WorkerProcess

__all__ = ["ExpressionProcess", "NoResult", "shared_process"]

# Longest wait for sympy to be imported.
START_SECONDS = 120.0

_WORKER = "codedance_verl.grading.rules.expression_worker"


class ExpressionProcess(WorkerProcess):
    """One worker process, started when first needed and again after it was killed. Safe to use from several threads.

    A comparison waits for those before it; only its own run time counts against its limit.
    """

    def __init__(self) -> None:
        super().__init__(_WORKER, (), START_SECONDS)

    def equal(self, given: str, truth: str, relative_tolerance: float, seconds: float) -> bool | None:
        """True if two formulas in LaTeX are equal; None where the true one cannot be read.

        Raises:
            NoResult: no result within `seconds`, or the process ended.
        """
        asked = {"given": given, "truth": truth, "tolerance": relative_tolerance, "seconds": seconds}
        try:
            found: bool | None = self.ask(asked, seconds)["equal"]
        except NotStarted as error:
            raise NoResult(f"math-verify does not start ({error}); is it installed?") from None
        return found


@functools.cache
def shared_process() -> ExpressionProcess:
    """Worker of this Python process; ends with it."""
    process = ExpressionProcess()
    atexit.register(process.close)
    return process
