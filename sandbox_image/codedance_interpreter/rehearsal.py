"""Rehearsal of what sessions do, in the zygote, before its memory is shared.

Python rewrites its own bytecode while a function is run for the first times (PEP 659), and fills caches. What has been
run here often enough is not written to in the sessions, each of which would have a copy of every page written to.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import linecache
import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from . import input_images, runner, session, shared_images, wire
from .image_store import ImageStore
from .limits import Limits
from .supervisor import Supervisor

ROUNDS = 64
CELLS = (
    "x = 1 + 1; print(x)",
    "input_image.crop((0, 0, 32, 32)).resize((48, 48))",
    "import numpy as np\na = np.array(input_image)\na.mean()",
    "raise ValueError('no')",
)
_LIMITS = Limits(1, 1, 1, 1, stdout_bytes=1 << 16, images=8, image_pixels=1 << 20)


class _NobodyElse:
    """Killer for a process that has no others."""

    def kill_others(self) -> None:
        pass


def run(given_names: Mapping[str, object]) -> None:
    """Decodes images and runs cells, and leaves no trace of it."""
    from PIL import Image

    image = Image.new("RGB", (64, 64), "red")
    with _nothing_left():
        _run_cells(given_names, input_images.InputImage(image, b"", ""))
        for form in ("PNG", "JPEG"):
            encoded = io.BytesIO()
            image.save(encoded, form)
            for _ in range(ROUNDS):
                _share(encoded.getvalue())


def _share(data: bytes) -> None:
    """Decodes an image as a decoder does, and takes it as a session does."""
    store = ImageStore()
    file, unchecked = store.add("image")
    shared_images.write(file, unchecked, data)
    store.decoder_started(0, "image")
    store.decoder_ended(0, 0)
    (image,) = store.images(["image"])
    shared_images.await_check(image)
    shared_images.take(image)
    image.close()


def _run_cells(given_names: Mapping[str, object], image: input_images.InputImage) -> None:
    """Runs cells as supervisor and runner do, both in this process."""
    host, caller = socket.socketpair()
    with host, caller:
        for number in range(ROUNDS):
            own, runners = session.make_links()
            state = session.Session(_NobodyElse(), _LIMITS, session.new_namespace(given_names), keep_on_error=True)
            session.offer_input_images(state, [image], "/nowhere")
            supervising = Supervisor(host, own, 0, _LIMITS, "/nowhere", keep_on_error=True, file_bytes=0)
            for call, code in enumerate(CELLS, start=number):
                wire.send(caller, {"op": "run", "call": call, "code": code})
                cell = supervising.next_cell()
                runner.run_cell(state, runners, wire.receive(runners.channel))
                supervising.supervise(cell)
                supervising.conclude(cell)
                wire.receive(runners.channel)
                wire.receive(caller)
            supervising.close()
            os.close(signal.set_wakeup_fd(-1))  # the other end of what it listens to
            runners.close()
            os.close(own.capture)


@contextlib.contextmanager
def _nothing_left() -> Iterator[None]:
    """Restores what cells change in a process."""
    streams: Any = sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__
    main, handlers = sys.modules["__main__"], {number: signal.getsignal(number) for number in _SIGNALS}
    saved = os.dup(1), os.dup(2)
    try:
        yield
    finally:
        sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__ = streams  # type: ignore[misc]
        for descriptor, copy in zip((1, 2), saved, strict=True):
            os.dup2(copy, descriptor)
            os.close(copy)
        sys.modules["__main__"] = main
        for number, handler in handlers.items():
            signal.signal(number, handler)
        linecache.clearcache()
        vars(builtins).pop("_", None)


_SIGNALS = (signal.SIGINT, signal.SIGCHLD)
