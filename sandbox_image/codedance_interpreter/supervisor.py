"""Supervisor of a session: takes cells from the host to the runner and results back, and never runs a cell itself.

Only the supervisor writes to the host, so a runner that is killed half-way cannot garble that stream, and what a cell
still sends late arrives nowhere. In a container it runs under a user id of its own, out of the runner's reach.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, NoReturn

from . import output, room, wire
from .limits import Limits
from .process_kill import reap
from .session import Links
from .wire import Message

MAX_CELL_BYTES = wire.MAX_FRAME_BYTES // 2  # images of a cell; its text needs room in the same frame
INTERRUPT_SECONDS = 0.1
WAKE_SECONDS = 5.0
"""Wait for the checkpoint's answer: it takes seconds on busy cores, and a tampered checkpoint never answers."""

SEND_SECONDS = 5.0
_SIGNAL_NAMES: dict[int, str] = {
    signal.SIGSEGV: "segmentation fault",
    signal.SIGKILL: "killed, perhaps for lack of memory",
}


@dataclass
class _Cell:
    """State of the running cell. Its messages bear its `mark`, which no earlier cell can have.

    `lacks` is what the container was short of before the cell could run (`room.py`), by the runner's word.
    """

    call: int
    mark: bytes = field(default_factory=lambda: os.urandom(16))
    images: list[Message] = field(default_factory=list)
    image_bytes: int = 0
    cancelled: bool = False
    lacks: str = ""
    done: Message | None = None

    @property
    def is_over(self) -> bool:
        return self.done is not None or bool(self.lacks)


class Supervisor:
    """Link of the host's connection `host` and the runner `pid` at the other end of `links`.

    `file_bytes` bounds the largest file of the session's images.
    """

    def __init__(
        self,
        host: socket.socket,
        links: Links,
        pid: int,
        limits: Limits,
        directory: str,
        keep_on_error: bool,
        file_bytes: int,
    ) -> None:
        self._host = host
        self._links = links
        self._limits = limits
        self._directory = directory
        self._keep_on_error = keep_on_error
        self._file_bytes = file_bytes
        self._frames = wire.FrameBuffer(MAX_CELL_BYTES)
        self._runner = pid
        self._ended: dict[int, int] = {}
        self._child_ended = socket_of_ended_children()
        links.channel.settimeout(SEND_SECONDS)
        links.wake.settimeout(WAKE_SECONDS)

    def serve(self) -> NoReturn:
        """Serves cells until the host closes the connection or the session cannot be saved."""
        while True:
            cell = self.next_cell()
            self.supervise(cell)
            self.conclude(cell)

    def next_cell(self) -> _Cell:
        """Waits for a cell and hands it to the runner; one that has died meanwhile is replaced by its checkpoint."""
        nothing = _Cell(0)
        while True:
            ready = _readable(self._host, self._links.channel, self._child_ended)
            if self._links.channel in ready:
                if not self._take(nothing):
                    self._wake_checkpoint()
            elif self._child_ended in ready:
                if self._runner_has_ended():
                    self._wake_checkpoint()
            elif (request := self._request())["op"] == "run":
                # The capture is opened to append, so a writer of an earlier cell leaves no gap.
                os.ftruncate(self._links.capture, 0)
                self._ended.clear()
                cell = _Cell(int(request["call"]))
                with contextlib.suppress(OSError):  # it has just died, and is found to have
                    wire.send(self._links.channel, {"code": request["code"], "cell": cell.mark})
                return cell

    def supervise(self, cell: _Cell) -> None:
        """Collects what the runner sends until its last message, its death, or the time after its interruption."""
        kill_at = None
        while not cell.is_over and (kill_at is None or monotonic() < kill_at):
            ready = _readable(self._links.channel, self._child_ended, self._host, until=kill_at)
            if self._links.channel in ready:
                if not self._take(cell):
                    return
            elif self._child_ended in ready and self._runner_has_ended():
                return
            if self._host in ready:
                request = self._request()
                if request["op"] == "cancel" and request["call"] == cell.call and not cell.cancelled:
                    cell.cancelled = True
                    # Time for the traceback of KeyboardInterrupt; a cell that catches it is killed all the same.
                    kill_at = monotonic() + INTERRUPT_SECONDS
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(self._runner, signal.SIGINT)

    def _take(self, cell: _Cell) -> bool:
        """Takes what the runner sent; false when that was no proper message."""
        try:
            chunk = self._links.channel.recv(1 << 18)
            for message in self._frames.feed(chunk):
                if "runner" in message:
                    self._change_runner(int(message["runner"]))
                else:
                    _note_message(cell, message, self._limits.images)
        except (OSError, wire.WireError, KeyError, TypeError, ValueError, RecursionError):
            return False
        return bool(chunk)

    def conclude(self, cell: _Cell) -> None:
        """Reports the cell, after it was undone if it has to be."""
        if cell.lacks and self._is_short_of(cell.lacks):
            self._send({"op": "no_room", "lacks": cell.lacks})
            self._confirm_state()
            return
        error = cell.done["error"] if cell.done is not None else None
        if cell.done is not None and not cell.cancelled and (error is None or self._keep_on_error):
            _add_note(error, "(What this cell had done before the error was kept.)")
            self._report(cell, "done" if error is None else "error", error)
            self._confirm_state()
            return
        # Waking the checkpoint changes the runner, and the cause of death is the old one's.
        failed = self._runner
        names = self._wake_checkpoint()
        if cell.cancelled:
            outcome, error = "cancelled", _timeout_error(error)
        elif error is None:
            outcome, error = "died", _death_error(self._ended.get(failed))
        else:
            outcome = "error"
        kept = f"; still defined: {', '.join(names)}" if names else ""
        _add_note(error, f"(This cell's changes were undone{kept}.)")
        self._report(cell, outcome, error)

    def _is_short_of(self, lacks: str) -> bool:
        """Returns true where the container is. Code that could fake that would choose which of its cells count."""
        try:
            return lacks == room.FILES and room.is_used_up(self._directory, self._file_bytes)
        except OSError:  # the directory has gone
            return False

    def _confirm_state(self) -> None:
        """Informs the runner that its state counts: it no longer needs the checkpoint."""
        with contextlib.suppress(OSError):
            wire.send(self._links.channel, {"counts": True})

    def _report(self, cell: _Cell, outcome: str, error: Message | None) -> None:
        stdout, cut = output.collect(self._links.capture, self._limits.stdout_bytes)
        cuts = cell.done["truncated"] if cell.done is not None else []
        self._send(
            {
                "op": "result",
                "call": cell.call,
                "outcome": outcome,
                "stdout": stdout,
                "error": error,
                "images": cell.images,
                "truncated": (["stdout"] if cut else []) + [kind for kind in cuts if kind != "stdout"],
            }
        )

    def _wake_checkpoint(self) -> list[str]:
        """Makes the checkpoint end the runner and take its place. Returns the names of its variables."""
        try:
            while _readable(self._links.wake, until=0.0):  # the runner has no business there
                if not self._links.wake.recv(1 << 16):
                    self._leave()
            self._links.wake.sendall(b".")
            answer = wire.receive(self._links.wake)
            pid, names = int(answer["runner"]), [str(name)[:100] for name in answer["names"]][:30]
        except (OSError, EOFError, wire.WireError, KeyError, TypeError, ValueError, RecursionError):
            self._leave()
        self._change_runner(pid)
        while _readable(self._links.channel, until=0.0):  # what the dead runner had still sent
            if not self._links.channel.recv(1 << 18):
                self._leave()
        self._frames = wire.FrameBuffer(MAX_CELL_BYTES)
        return names

    def _change_runner(self, pid: int) -> None:
        self._runner_has_ended()
        self._runner = pid

    def _runner_has_ended(self) -> bool:
        """Collects the children that have ended: the runner, a checkpoint, or what a cell left."""
        with contextlib.suppress(BlockingIOError):
            self._child_ended.recv(4096)
        self._ended.update(reap())
        return self._runner in self._ended

    def _request(self) -> Message:
        try:
            return wire.receive(self._host)
        except (EOFError, OSError, wire.WireError):
            self._leave()

    def _send(self, message: Message) -> None:
        try:
            wire.send(self._host, message)
        except (OSError, wire.WireError):
            self._leave()

    def close(self) -> None:
        """Closes its ends, but not the host's connection."""
        self._links.close()
        self._child_ended.close()

    def _leave(self) -> NoReturn:
        """Ends the session, whose host has gone or which is lost: the closed channel ends the other processes."""
        with contextlib.suppress(OSError):
            self._links.channel.close()
            self._links.wake.close()
            os.chdir("/")
        shutil.rmtree(self._directory, ignore_errors=True)
        os._exit(0)


def _note_message(cell: _Cell, message: Message, most_images: int) -> None:
    """Notes what the runner sends about the cell. Raises what the lookups and conversions of a wrong message raise."""
    # From something an earlier cell has left behind.
    if message["cell"] != cell.mark:
        return
    if "lacks" in message:
        cell.lacks = str(message["lacks"])[:100]
    elif "done" in message:
        cell.done = _checked_end(message["done"])
    else:
        image = message["image"]
        cell.image_bytes += len(image["png"])
        if len(cell.images) < most_images and cell.image_bytes < MAX_CELL_BYTES:
            cell.images.append({"png": image["png"]})


def _checked_end(done: Any) -> Message:
    error = done["error"]
    if error is not None:
        # The runner is not trusted: types and lengths are made here.
        error = {key: str(error[key])[:8_000] for key in ("kind", "message", "traceback")}
    return {"error": error, "truncated": [str(part)[:100] for part in done["truncated"][:16]]}


def _death_error(status: int | None) -> Message:
    if status is None:
        return _note("Crash", "the cell ended its own process")
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        name = _SIGNAL_NAMES.get(number) or signal.strsignal(number)
        return _note("Crash", f"the cell was ended by signal {number} ({name})")
    return _note("ProcessExit", f"the cell ended its own process (exit code {os.WEXITSTATUS(status)})")


def _note(kind: str, message: str) -> Message:
    return {"kind": kind, "message": message, "traceback": f"{kind}: {message}"}


def _timeout_error(interrupted: Message | None) -> Message:
    """Returns a timeout, with the lines at which an interrupted cell was before it was killed."""
    lines = interrupted["traceback"].splitlines() if interrupted is not None else []
    where = lines[:-1] if lines and lines[-1] == "KeyboardInterrupt" else []
    return {"kind": "Timeout", "message": "", "traceback": "\n".join(where)}


def _add_note(error: Message | None, note: str) -> None:
    if error is not None:
        error["traceback"] = f"{error['traceback']}\n{note}".strip()


def socket_of_ended_children() -> socket.socket:
    """Returns a socket that becomes readable whenever a child has ended."""
    mine, its = socket.socketpair()
    mine.setblocking(False)
    its.setblocking(False)
    signal.set_wakeup_fd(its.detach(), warn_on_full_buffer=False)
    # A handler must exist, else there is no wake-up; the work is done where the socket is read.
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return mine


def _readable(*sockets: socket.socket, until: float | None = None) -> list[socket.socket]:
    """Returns the sockets that can be read, or have ended; none when `until`, a time of `monotonic`, comes first."""
    poll = select.poll()
    for item in sockets:
        poll.register(item.fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)
    timeout_ms = None if until is None else max(0.0, until - monotonic()) * 1000
    ready = {descriptor for descriptor, _event in poll.poll(timeout_ms)}
    return [item for item in sockets if item.fileno() in ready]
