"""Fuzzes both readers of the wire format, and what believes their messages, with broken frames.

    python -m tests.fuzz.wire --frames 1000000 --seed 0

Every broken frame goes to the host's reader (in the pieces it arrives in), to the interpreter's
`FrameBuffer`, and now and then through a real socket to the interpreter's `receive`. What may come out is a message,
the end of the stream, or `WireError`; valid frames around a well-framed broken one come out unchanged; the sides agree.
Every message that comes out goes on to `execution_of` (an `Execution` within its bounds, or `ReplyError`) and to the
supervisor's reading of its runner. Prints JSON. Exits with 1 and the offending bytes on a finding; a crash or a hang
ends the process itself.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import faulthandler
import json
import resource
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from codedance_verl.sandbox import wire as host_wire
from codedance_verl.sandbox.execution import ReplyError, execution_of
from codedance_verl.types import Execution, ExecutionStatus
from sandbox_image.codedance_interpreter import supervisor as inner_supervisor
from sandbox_image.codedance_interpreter import wire as inner_wire
from tests.fuzz.corpus import CALL, CONFIG
from tests.fuzz.mutation import Case, Message, cases

BLOCK = 1000
HANG_SECONDS = 60
SLOWEST_SECONDS = 5.0
GROWTH_MIB = 128
_SOCKET_EVERY = 16
# What the supervisor of a session is prepared for when its runner sends nonsense.
_SUPERVISOR_EXPECTS = (inner_wire.WireError, KeyError, TypeError, ValueError, RecursionError)


class Finding(AssertionError):
    """Something came out of a reader that is neither a message nor a documented exception."""


@dataclass
class Tally:
    """Counts of the frames so far by their fate.

    `outcomes` counts how each stream ended on the host's side; `slowest_s` is the most processor time one frame took.
    """

    frames: int = 0
    messages: int = 0
    executions: int = 0
    replies_refused: int = 0
    slowest_s: float = 0.0
    outcomes: collections.Counter[str] = field(default_factory=collections.Counter)

    def as_dict(self) -> dict[str, Any]:
        return {**vars(self), "outcomes": dict(self.outcomes)}


class Fuzzer:
    """Feeds cases to the readers and checks what comes out."""

    def __init__(self) -> None:
        self.tally = Tally()

    def run(self, seed: int, frames: int) -> None:
        """Try `frames` broken frames. Raises `Finding`, with what is needed to repeat it."""
        for number, case in enumerate(cases(seed, frames)):
            started = time.process_time()
            try:
                self._try(case, through_socket=number % _SOCKET_EVERY == 0)
            except Exception as error:
                detail = f"{type(error).__name__}: {error}" if not isinstance(error, Finding) else str(error)
                place = f"seed {seed}, frame {number} ({case.kind})"
                raise Finding(f"{detail}\n{place}: {[chunk.hex() for chunk in case.chunks]}"[:5000]) from error
            self.tally.slowest_s = max(self.tally.slowest_s, time.process_time() - started)
            self.tally.frames += 1

    def _try(self, case: Case, through_socket: bool) -> None:
        messages, outcome = self.read_as_host(case.chunks)
        self.tally.outcomes[outcome] += 1
        self.tally.messages += len(messages)
        _check_neighbours(case, messages, outcome)
        _check_agreement("FrameBuffer", messages, outcome, *read_with_buffer(case.chunks))
        if through_socket:
            _check_agreement("receive", messages, outcome, *read_through_socket(case.stream))
        for message in messages:
            self._believe(message)
            _hear_as_supervisor(message)

    def read_as_host(self, chunks: Sequence[bytes]) -> tuple[list[Message], str]:
        """Messages of a stream that ends, and how it ended."""
        reader = host_wire.FrameReader()
        messages: list[Message] = []
        try:
            for chunk in chunks:
                reader.feed(chunk)
                while (message := reader.take()) is not None:
                    messages.append(message)
        except host_wire.WireError:
            return messages, "refused"
        return messages, "end"

    def _believe(self, message: Message) -> None:
        try:
            execution = execution_of(message, CALL, CONFIG)
        except ReplyError:
            self.tally.replies_refused += 1
        else:
            _check_bounds(execution)
            self.tally.executions += 1


def read_with_buffer(chunks: Sequence[bytes]) -> tuple[list[Message], str]:
    """The same stream as a supervisor reads it from its runner; bytes that make no frame yet are left over."""
    buffer = inner_wire.FrameBuffer()
    messages: list[Message] = []
    try:
        for chunk in chunks:
            messages += buffer.feed(chunk)
    except inner_wire.WireError:
        return messages, "refused"
    return messages, "end"


def read_through_socket(stream: bytes) -> tuple[list[Message], str]:
    """The same stream as init process, zygote and supervisor read it from the host."""
    mine, its = socket.socketpair()
    messages: list[Message] = []
    with mine, its:
        its.setblocking(False)
        its.sendall(stream)
        its.shutdown(socket.SHUT_WR)
        try:
            while True:
                messages.append(inner_wire.receive(mine))
        except EOFError:
            return messages, "end"
        except inner_wire.WireError:
            return messages, "refused"


def _check_neighbours(case: Case, messages: list[Message], outcome: str) -> None:
    if messages[: len(case.before)] != case.before:
        raise Finding("a valid frame before the broken one was lost")
    if case.framed and outcome == "end":
        expected = len(case.before) + 1 + len(case.after)
        if len(messages) != expected or messages[len(case.before) + 1 :] != case.after:
            raise Finding("a valid frame after one that was read was lost")


def _check_agreement(what: str, host: list[Message], outcome: str, inner: list[Message], inner_outcome: str) -> None:
    """Both sides read the same, but the host may refuse a message for the number of objects it holds.

    A buffer loses what it had from the same chunk when it refuses the next frame.
    """
    if outcome == "end" and inner_outcome != "end":
        raise Finding(f"{what} refuses what the host reads")
    common = min(len(host), len(inner))
    if not _same(host[:common], inner[:common]) or (inner_outcome == "end" and common < len(host)):
        raise Finding(f"{what} reads other messages than the host")
    if outcome == "end" and common < len(inner):
        raise Finding("the host has missed a message")


def _same(one: list[Message], other: list[Message]) -> bool:
    try:
        return one == other or repr(one) == repr(other)  # not-a-number equals nothing
    except RecursionError:
        return True  # nested too deep for Python to compare


def _check_bounds(execution: Execution) -> None:
    error = execution.error
    texts = [execution.stdout, *((error.kind, error.message, error.traceback) if error else ())]
    sound = (
        isinstance(execution.status, ExecutionStatus)
        and all(type(text) is str and len(text) <= 16_000 for text in texts)
        and len(execution.stdout) <= CONFIG.max_stdout_bytes + 64
        and len(execution.images) <= CONFIG.max_images
        and all(0 < image.width * image.height <= CONFIG.max_image_pixels for image in execution.images)
        and {cut.partition(":")[0] for cut in execution.truncated} <= {"stdout", "images", "image_size"}
        and all(len(cut) < 100 for cut in execution.truncated)
    )
    if not sound:
        raise Finding(f"an execution out of bounds was believed: {execution!r:.500}")


def _hear_as_supervisor(message: Message) -> None:
    """Passes a message of the runner to the supervisor's check."""
    cell = inner_supervisor._Cell(call=1)
    with contextlib.suppress(*_SUPERVISOR_EXPECTS):
        inner_supervisor._note_message(cell, message | {"cell": cell.mark}, CONFIG.max_images)
    error = cell.done["error"] if cell.done is not None else None
    if error is not None and not all(type(text) is str and len(text) <= 8_000 for text in error.values()):
        raise Finding(f"an error out of bounds was believed: {error!r:.500}")


def peak_mib() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def fuzz(frames: int, seed: int, progress: Callable[[Tally, float], None]) -> dict[str, Any]:
    """Try `frames` broken frames and return the figures. Raises `Finding`."""
    fuzzer = Fuzzer()
    fuzzer.run(-1 - seed, BLOCK)  # caches and buffers have their size before memory is looked at
    fuzzer.tally = Tally()
    before_mib, started = peak_mib(), time.monotonic()
    for block, done in enumerate(range(0, frames, BLOCK)):
        faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
        fuzzer.run(seed * 1_000_003 + block, min(BLOCK, frames - done))
        progress(fuzzer.tally, time.monotonic() - started)
    faulthandler.cancel_dump_traceback_later()
    seconds = time.monotonic() - started
    figures = {"seed": seed, "seconds": round(seconds, 1), "frames_per_s": round(frames / seconds)}
    grown = round(peak_mib() - before_mib, 1)
    if grown > GROWTH_MIB:
        raise Finding(f"memory grew by {grown} MiB, at most {GROWTH_MIB} are in order")
    if fuzzer.tally.slowest_s > SLOWEST_SECONDS:
        raise Finding(f"one frame took {fuzzer.tally.slowest_s:.1f} s")
    return {**figures, "grown_mib": grown, **fuzzer.tally.as_dict()}


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--frames", type=int, default=1_000_000, help="broken frames for each side")
    parser.add_argument("--seed", type=int, default=0, help="the same seed tries the same frames")
    given = parser.parse_args()
    last = time.monotonic()

    def progress(tally: Tally, seconds: float) -> None:
        nonlocal last
        if time.monotonic() - last > 5:
            last = time.monotonic()
            print(f"{tally.frames:>9} frames, {tally.frames / seconds:.0f}/s", file=sys.stderr, flush=True)

    try:
        print(json.dumps(fuzz(given.frames, given.seed, progress)))
    except Finding as finding:
        sys.exit(f"FINDING: {finding}")


if __name__ == "__main__":
    main()
