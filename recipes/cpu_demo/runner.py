"""Runs the stages of a plan: skips what is done, resumes what was interrupted, ends what takes too long."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from statistics import median

from codedance_verl.errors import UserError
from codedance_verl.runtime.progress import clock
from recipes.cpu_demo.console import Console
from recipes.cpu_demo.markers import Attempt, Marker, StageRecords, fingerprint
from recipes.cpu_demo.processes import GRACE_S, ProcessTree, end_leftover
from recipes.cpu_demo.stages import REPOSITORY, Stage

MIN_FREE_BYTES = 2 << 30
FULL_BYTES = 256 << 20
"""A stage that failed with less than this left on its disk failed for want of space."""

LOG_LINES = 20
_LOG_TAIL_BYTES = 64 << 10
_POLL_S = 0.5
_LOOK_S = 5.0
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_NO_SPACE_TEXTS = tuple(os.strerror(number) for number in _NO_SPACE)


class StageFailed(Exception):
    """A stage did not succeed. The text is one line; `log_tail` holds the last lines of the log of `stage`."""

    def __init__(self, message: str, log_tail: Sequence[str], stage: str = "") -> None:
        super().__init__(message)
        self.log_tail, self.stage = tuple(log_tail), stage


@dataclass(frozen=True)
class StagePosition:
    """Position of a stage in the plan: its number from 1, how many there are, and seconds expected after it."""

    number: int
    total: int
    expected_after_s: float


class Runner:
    """Runs stages one after the other and keeps records in `<out>/stages`, logs in `<out>/logs`."""

    def __init__(
        self,
        out: Path,
        console: Console,
        *,
        min_free_bytes: int = MIN_FREE_BYTES,
        grace_s: float = GRACE_S,
        working_folder: Path = REPOSITORY,
    ) -> None:
        self._out = out
        self._console = console
        self._records = StageRecords(out)
        self._min_free_bytes = min_free_bytes
        self._grace_s = grace_s
        self._working_folder = working_folder

    def run(self, stages: Sequence[Stage]) -> None:
        """Runs what is not done.

        Raises:
            StageFailed: a command failed, took too long, or did not write what it should.
            UserError: the disk is full.
        """
        with explained_disk_errors(self._out):
            for number, stage in enumerate(stages, start=1):
                later = sum(self._expected(item) for item in stages[number:])
                self._run_stage(stage, StagePosition(number, len(stages), later))

    def wall_seconds(self, stage: Stage) -> float | None:
        marker = self._records.marker(stage.name)
        return marker.wall_s if marker else None

    def _expected(self, stage: Stage) -> float:
        """Seconds a later stage will take; nothing if it is done. Its inputs may yet change, so this is a guess."""
        return 0.0 if self._records.marker(stage.name) and not stage.always else self._usual(stage)

    def _usual(self, stage: Stage) -> float:
        """Seconds that stages like this one have taken, or what the plan expects while none has finished."""
        took = [marker.wall_s for name in stage.alike if (marker := self._records.marker(name))]
        return median(took) if took else stage.expected_s

    def _run_stage(self, stage: Stage, position: StagePosition) -> None:
        head = f"[{position.number}/{position.total}] {stage.title}"
        inputs = fingerprint(stage.command, stage.inputs)
        marker = self._records.marker(stage.name)
        if marker and marker.inputs == inputs and not stage.always and all(path.exists() for path in stage.outputs):
            self._console.line(f"{head}: done before, {clock(marker.wall_s)}")
            return
        check_free_space(self._out, self._min_free_bytes)
        attempt = self._prepare(stage, inputs)
        resumed = f" (resumes after {clock(attempt.wall_s)})" if attempt.wall_s else ""
        self._console.line(f"{head} ...{resumed}")
        wall_s = self._execute(stage, attempt, head, position)
        missing = [path for path in stage.outputs if not path.exists()]
        if missing:
            raise self._failure(stage, wall_s, f"its command succeeded but did not write {missing[0]}")
        if stage.always and marker and marker.inputs == inputs:  # this time it only had to look
            wall_s = max(wall_s, marker.wall_s)
        self._records.finish(Marker(stage.name, wall_s, inputs))
        self._console.line(f"{head}: {clock(wall_s)}, about {clock(position.expected_after_s)} to go")

    def _prepare(self, stage: Stage, inputs: str) -> Attempt:
        """Ends what a killed driver left running, and clears what a try cannot build on."""
        earlier = self._records.attempt(stage.name)
        if earlier and _end_leftover(earlier, self._grace_s):
            self._console.line(f"      ended what an interrupted run had left running of {stage.name}")
        if earlier and earlier.inputs == inputs and stage.resumable:
            return replace(earlier, pid=None, started=None)
        # half of an earlier try would pass for outputs of this one
        if stage.folder is not None and stage.folder.exists():
            shutil.rmtree(stage.folder)
        # the seconds of tries that are thrown away count all the same: they were spent
        return Attempt(inputs, earlier.wall_s if earlier and earlier.inputs == inputs else 0.0)

    def _execute(self, stage: Stage, attempt: Attempt, head: str, position: StagePosition) -> float:
        """Runs the command to its end; returns the stage's wall seconds over all tries."""
        log = self._start_log(stage)
        began = time.monotonic()
        # before the command is started: a driver that is killed leaves a note of what to end
        self._records.note(stage.name, attempt)
        tree = ProcessTree(stage.command, log, {**os.environ, "PYTHONUNBUFFERED": "1"}, self._working_folder)
        try:
            code = self._watch(stage, tree, attempt, began, head, position)
        finally:
            tree.end(self._grace_s)
            wall_s = attempt.wall_s + time.monotonic() - began
            self._records.note(stage.name, replace(attempt, wall_s=wall_s))
        if code is None:
            raise self._failure(stage, wall_s, f"it was ended at its limit of {stage.timeout_s:.0f} s")
        if code != 0:
            raise self._failure(stage, wall_s, _ending(code))
        return wall_s

    def _watch(
        self, stage: Stage, tree: ProcessTree, attempt: Attempt, began: float, head: str, position: StagePosition
    ) -> int | None:
        """Waits for the command, with progress; its exit code, or None at its time limit."""
        next_look = began
        while True:
            code = tree.wait(_POLL_S)
            now = time.monotonic()
            if code is not None:
                return code
            if now - began > stage.timeout_s:
                return None
            if now >= next_look:
                next_look = now + _LOOK_S
                tree.look()
                wall_s = attempt.wall_s + now - began
                self._records.note(stage.name, Attempt(attempt.inputs, wall_s, tree.pid, tree.started))
                self._console.update(self._progress_line(stage, wall_s, head, position))

    def _progress_line(self, stage: Stage, elapsed_s: float, head: str, position: StagePosition) -> str:
        """`elapsed_s` over all tries."""
        found = stage.progress() if stage.progress else None
        left = found.seconds_left(elapsed_s) if found else None
        to_go = (max(0.0, self._usual(stage) - elapsed_s) if left is None else left) + position.expected_after_s
        text = f" {found.text}," if found else ""
        return f"{head}:{text} {clock(elapsed_s)} so far, about {clock(to_go)} to go"

    def _start_log(self, stage: Stage) -> Path:
        """The stage's log; that of an earlier try is kept beside it, so that a failure quotes its own lines."""
        log = self._log(stage)
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.exists():
            log.replace(log.with_suffix(".previous.log"))
        log.write_text(f"=== {datetime.now():%Y-%m-%d %H:%M:%S} {' '.join(stage.command)}\n", encoding="utf-8")
        return log

    def _failure(self, stage: Stage, wall_s: float, how: str) -> StageFailed:
        log = self._log(stage)
        tail = last_lines(log)
        free = shutil.disk_usage(self._out).free
        if free < FULL_BYTES or any(text in line for line in tail for text in _NO_SPACE_TEXTS):
            return StageFailed(f"stage {stage.name} failed: {disk_full_message(self._out)}", tail, stage.name)
        said = next((line.removeprefix("error: ") for line in reversed(tail) if line.startswith("error: ")), None)
        reason = said or how
        message = f"stage {stage.name} failed after {clock(wall_s)}: {reason} (log: {log})"
        return StageFailed(message, tail, stage.name)

    def _log(self, stage: Stage) -> Path:
        return self._out / "logs" / f"{stage.name}.log"


def check_free_space(folder: Path, needed_bytes: int) -> None:
    """Raises `UserError` when the disk of `folder` has less than `needed_bytes` free."""
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise UserError(
            f"{folder}: {free / 2**20:.0f} MiB free on its disk, at least {needed_bytes / 2**20:.0f} MiB are needed; "
            "free some space, or choose another folder with --out"
        )


def disk_full_message(folder: Path) -> str:
    return (
        f"the disk of {folder} is full ({shutil.disk_usage(folder).free / 2**20:.0f} MiB free); "
        "free some space and run the demo again, it resumes where it was"
    )


@contextmanager
def explained_disk_errors(folder: Path) -> Iterator[None]:
    """Turns a full disk into a `UserError`."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise UserError(disk_full_message(folder)) from error
        raise


def last_lines(log: Path, count: int = LOG_LINES) -> list[str]:
    """The last lines of a log that may be large; progress bars that rewrite a line count as their last state."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - _LOG_TAIL_BYTES))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return []
    lines = [line.rstrip("\r").rsplit("\r", 1)[-1] for line in text.split("\n")]
    return [line for line in lines if line.strip()][-count:]


def _end_leftover(attempt: Attempt, grace_s: float) -> bool:
    if attempt.pid is None or attempt.started is None:
        return False
    return end_leftover(attempt.pid, attempt.started, grace_s)


def _ending(code: int) -> str:
    if code > 0:
        return f"its command ended with exit code {code}"
    return f"its command was killed by signal {-code}" + (" (out of memory?)" if code == -9 else "")
