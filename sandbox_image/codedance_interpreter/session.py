"""The head of a session: holds the last good state and runs every cell in a forked copy of itself.

The copy is forked ahead of the call, while nothing waits for it. It talks to the head over a socket pair of its own:
images as they are shown, then how the cell ended. When it succeeded the head reports to the host, hands the copy the
host's connection and leaves; the copy is the head from then on. When it failed, was cancelled or died, the head kills
all that belongs to the session but itself, and stays: variables are as they were before the cell. Only the head ever
writes to the host, so a copy that is killed half-way cannot garble that stream, and what a cell still sends late
arrives nowhere. Files in the working directory are not rolled back.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import select
import shutil
import signal
import socket
import sys
import threading
import types
from dataclasses import dataclass, field
from os import _exit, close, fork, waitpid
from pathlib import Path
from time import monotonic
from typing import Any, NoReturn

from . import display, output, wire
from .cell import run_cell
from .limits import Limits
from .reach import Reach, reap
from .wire import Message

MAX_CELL_BYTES = wire.MAX_FRAME_BYTES // 2
_SIGNAL_NAMES: dict[int, str] = {
    signal.SIGSEGV: "segmentation fault",
    signal.SIGKILL: "killed, perhaps for lack of memory",
}


@dataclass
class Session:
    """State of a session as it is copied by fork."""

    session_id: str
    directory: str
    reach: Reach
    limits: Limits
    namespace: dict[str, Any]
    given_names: frozenset[str] = frozenset()
    cells: int = 0


@dataclass
class _Copy:
    """The head's view of the copy that runs, or will run, a cell."""

    pid: int
    channel: socket.socket
    capture: int
    frames: wire.FrameBuffer = field(default_factory=lambda: wire.FrameBuffer(MAX_CELL_BYTES))
    images: list[Message] = field(default_factory=list)
    image_bytes: int = 0
    cancelled: bool = False

    def drop(self) -> None:
        self.channel.close()
        close(self.capture)


def new_namespace() -> dict[str, Any]:
    """Globals of a fresh session, as those of a module `__main__` so that classes defined in cells can be pickled."""
    module = types.ModuleType("__main__")
    module.__dict__["display"] = display.show
    sys.modules["__main__"] = module
    return module.__dict__


def load_input_image(session: Session, data: bytes | None) -> None:
    """Offer the question's image as `input_image` (PIL, RGB) and as files `input_image.png` and `input_image.jpg`."""
    if data is not None:
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(io.BytesIO(data)) as opened:
                plain_png = opened.format == "PNG" and opened.mode == "RGB"
                image = opened.convert("RGB")
        except UnidentifiedImageError:
            raise ValueError(f"{len(data)} bytes that are no picture") from None
        if plain_png:
            Path("input_image.png").write_bytes(data)
        else:
            image.save("input_image.png", compress_level=1)
        image.save("input_image.jpg", quality=95)
        session.namespace["input_image"] = image
    session.given_names = frozenset(session.namespace)


def serve(session: Session, host: socket.socket) -> NoReturn:
    """Run cells until the host closes the connection. Continues in the copy whenever a cell succeeded."""
    while True:
        mine, its = socket.socketpair()
        capture = output.open_capture()
        seeds = random.getstate()
        pid = fork()
        if pid == 0:
            random.setstate(seeds)  # fork reseeds `random`; a seed set by an earlier cell must go on
            mine.close()
            host.close()
            host = _be_copy(session, its, capture)
        else:
            its.close()
            _be_head(session, host, _Copy(pid, mine, capture))


def _be_copy(session: Session, head: socket.socket, capture: int) -> socket.socket:
    """Wait for a cell and run it. Returns the connection to the host when this copy has become the head."""
    session.reach.enter()
    try:
        request = wire.receive(head)
    except (EOFError, OSError, wire.WireError):
        _exit(0)
    output.redirect(capture)
    close(capture)
    session.cells += 1
    shown = display.Display(session.limits, lambda message: wire.send(head, message))
    display.activate(shown)
    error = run_cell(str(request["code"]), session.cells, session.namespace, shown)
    _flush(sys.stdout)
    try:
        wire.send(head, {"done": {"error": error, "truncated": shown.truncated}})
        _data, descriptors, _flags, _address = socket.recv_fds(head, 1, 1)
    except OSError:
        _exit(0)
    if not descriptors:
        _exit(0)
    head.close()
    _shed_threads()
    session.reach.kill_others()
    reap()
    return socket.socket(fileno=descriptors[0])


def _shed_threads() -> None:
    """Go on in a fork when the cell left threads running: they end with the cell, and the next fork is a clean one."""
    if threading.active_count() > 1 and fork() != 0:
        _exit(0)


def _be_head(session: Session, host: socket.socket, copy: _Copy) -> None:
    """Forward one cell to the copy and see it through. Returns only when this process stays the head."""
    call = _await_request(session, host, copy)
    if call is None:
        copy.drop()
        return
    started = monotonic()
    done = _supervise(session, host, copy, call)
    error = done.get("error") if done is not None else None
    if done is not None and error is None:
        _report(session, host, copy, call, "done", done, started)
        socket.send_fds(copy.channel, [b"."], [host.fileno()])
        _exit(0)
    session.reach.kill_others()
    outcome = "error"
    if done is None:
        status = waitpid(copy.pid, 0)[1]
        outcome = "cancelled" if copy.cancelled else "died"
        done = {"error": _death_error(status) if outcome == "died" else _note("Timeout", "")}
    reap()
    done["error"]["traceback"] = f"{done['error']['traceback']}\n{_undone_note(session)}".strip()
    _report(session, host, copy, call, outcome, done, started)
    session.cells += 1
    copy.drop()


def _await_request(session: Session, host: socket.socket, copy: _Copy) -> int | None:
    """Wait for a cell and hand it to the copy; None when the copy has died meanwhile and must be replaced."""
    while True:
        ready = _readable(host, copy.channel)
        if copy.channel in ready:  # it has nothing to say before it has a cell: it died
            session.reach.kill_others()
            waitpid(copy.pid, 0)
            return None
        request = _host_request(session, host)
        if request["op"] == "run":
            wire.send(copy.channel, {"code": request["code"]})
            return int(request["call"])


def _supervise(session: Session, host: socket.socket, copy: _Copy, call: int) -> Message | None:
    """Collect what the copy sends. Returns its last word, or None when it died or was cancelled before that."""
    while True:
        ready = _readable(host, copy.channel)
        if copy.channel in ready:
            try:
                chunk = copy.channel.recv(1 << 18)
                done = _take_frames(session, copy, copy.frames.feed(chunk)) if chunk else None
            except (OSError, wire.WireError, KeyError, TypeError, ValueError):
                return None
            if done is not None or not chunk:
                return done
        if host in ready:
            request = _host_request(session, host)
            if request["op"] == "cancel" and request["call"] == call:
                copy.cancelled = True
                session.reach.kill_others()
                return None


def _take_frames(session: Session, copy: _Copy, messages: list[Message]) -> Message | None:
    for message in messages:
        if "done" in message:
            done = message["done"]
            return {"error": _checked_error(done["error"]), "truncated": [str(part) for part in done["truncated"]][:8]}
        image = message["image"]
        copy.image_bytes += len(image["png"])
        if len(copy.images) < session.limits.images and copy.image_bytes < MAX_CELL_BYTES:
            copy.images.append({key: image[key] for key in ("png", "sha256", "width", "height")})
    return None


def _checked_error(error: Any) -> Message | None:
    return None if error is None else {key: str(error[key])[:8_000] for key in ("kind", "message", "traceback")}


def _report(
    session: Session, host: socket.socket, copy: _Copy, call: int, outcome: str, done: Message, started: float
) -> None:
    stdout, cut = output.collect(copy.capture, session.limits.stdout_bytes)
    wire.send(
        host,
        {
            "op": "result",
            "call": call,
            "outcome": outcome,
            "stdout": stdout,
            "error": done["error"],
            "images": copy.images,
            "truncated": (["stdout"] if cut else []) + list(done.get("truncated", ())),
            "seconds": monotonic() - started,
        },
    )


def _death_error(status: int) -> Message:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        name = _SIGNAL_NAMES.get(number) or signal.strsignal(number)
        return _note("Crash", f"the cell was ended by signal {number} ({name})")
    return _note("ProcessExit", f"the cell ended its own process (exit code {os.WEXITSTATUS(status)})")


def _note(kind: str, message: str) -> Message:
    return {"kind": kind, "message": message, "traceback": f"{kind}: {message}" if message else ""}


def _undone_note(session: Session) -> str:
    """Tells the writer of the failed cell which names of earlier cells it can count on."""
    names = [name for name in session.namespace if name not in session.given_names and not name.startswith("_")]
    kept = f"; still defined: {', '.join(sorted(names)[:30])}" if names else ""
    return f"(This cell's changes were undone{kept}.)"


def _host_request(session: Session, host: socket.socket) -> Message:
    """Next request of the host. When the host has closed the connection the session ends here."""
    try:
        return wire.receive(host)
    except (EOFError, OSError, wire.WireError):
        session.reach.kill_others()
        reap()
        os.chdir("/")
        shutil.rmtree(session.directory, ignore_errors=True)
        _exit(0)


def _readable(*sockets: socket.socket) -> list[socket.socket]:
    poll = select.poll()
    for item in sockets:
        poll.register(item.fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)
    ready = {descriptor for descriptor, _event in poll.poll()}
    return [item for item in sockets if item.fileno() in ready]


def _flush(stream: Any) -> None:
    with contextlib.suppress(OSError, ValueError):  # the cell may have closed its stdout: nothing is left to save then
        stream.flush()
