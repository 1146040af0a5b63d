"""Zygote: has the scientific libraries in memory and forks sessions, which start warm at the price of a fork."""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import os
import select
import shutil
import socket
import sys
from pathlib import Path
from typing import NoReturn

from . import (
    display,
    forks,
    limits,
    memory,
    process_kill,
    rehearsal,
    room,
    session_start,
    supervisor,
    wire,
)
from .host_connection import InterpreterOptions, connect
from .image_store import ImageStore
from .session_start import Bounds, SessionStart
from .wire import Message

LIGHT = (
    *("numpy", "numpy.random", "numpy.linalg", "numpy.fft"),
    *("PIL.Image", "PIL.ImageDraw", "PIL.ImageFont", "PIL.ImageOps", "PIL.ImageFilter", "PIL.ImageEnhance"),
    *("cv2", "matplotlib.pyplot", "matplotlib.patches", "scipy.ndimage"),
)
FULL = (*LIGHT, "scipy.optimize", "scipy.stats", "skimage.measure", "sympy", "pandas")
PRELOADS = {"light": LIGHT, "full": FULL}
_given_names: dict[str, object] = {"display": display.show}


def run(options: InterpreterOptions) -> NoReturn:
    """Imports the libraries, reports to the host, forks a session for every `open` request until the host leaves."""
    _bring_font_cache(options)
    _preload(PRELOADS[options.preload])
    sys.argv[:] = sys.orig_argv[:] = [""]  # of the init process; cells see a program without arguments
    sys.dont_write_bytecode = True
    session_start.prepare()
    child_ended = supervisor.socket_of_ended_children()
    Zygote(options, connect(options, {"role": "zygote"}), limits.mapped_bytes()).serve(child_ended)


class Zygote:
    """Zygote's state: the connection to the host, the images of sessions, and its own address space, in bytes."""

    def __init__(self, options: InterpreterOptions, control: socket.socket, mapped_bytes: int) -> None:
        self._options = options
        self._control = control
        self._mapped_bytes = mapped_bytes
        self._images = ImageStore()

    def serve(self, child_ended: socket.socket) -> NoReturn:
        """Answers the host until it leaves. `child_ended` becomes readable when a child has."""
        while True:
            ready, _, _ = select.select([self._control, child_ended], [], [])
            try:
                if child_ended in ready:
                    with contextlib.suppress(BlockingIOError):
                        child_ended.recv(4096)
                    self._reap()
                if self._control in ready:
                    self._handle(wire.receive(self._control))
            except (EOFError, OSError, wire.WireError):
                os._exit(0)

    def _handle(self, request: Message) -> None:
        match request["op"]:
            case "open":
                self._open(request)
            case "image":
                self._decode(request)
            case "forget":
                self._images.forget(str(request["image"]))
            case "ping":
                held = limits.resident_bytes() + self._images.memory_bytes
                wire.send(self._control, {"op": "pong", "memory_bytes": held})

    def _reap(self) -> None:
        """Collects the decoders that have ended."""
        for pid, status in process_kill.reap():
            if (news := self._images.decoder_ended(pid, status)) is not None:
                wire.send(self._control, news)

    def _decode(self, request: Message) -> None:
        """Has an image decoded by a process under a user id of its own."""
        key = str(request["image"])
        bounds = limits.Limits.from_message(request["limits"])
        try:
            file, unchecked = self._images.add(key)
        except OSError as error:  # sessions with it are refused
            wire.send(self._control, {"op": "image", "image": key, "bytes": 0, "reason": str(error)})
            return
        try:
            pid = forks.fork()
        except OSError as error:
            wire.send(self._control, self._images.give_up(key, str(error), room.lacking(error)))
        else:
            if pid == 0:
                uid = int(request["uid"]) if self._options.own_uids else 0
                session_start.become_decoder(uid, bounds, self._mapped_bytes, file, unchecked, request["data"])
            self._images.decoder_started(pid, key)
        os.close(unchecked)

    def _open(self, request: Message) -> None:
        """Forks one session, which opens a connection of its own; what fails before is answered with `refused`."""
        connected = False
        try:
            images = self._images.images(request["images"])
            peer = connect(self._options, {"role": "session", "session": request["session"]})
            connected = True
            bounds = Bounds.of(request["limits"], self._mapped_bytes, per_uid=self._options.own_uids)
            start = SessionStart.of(self._options, request, peer, images, bounds, _given_names)
            try:
                # A child of the init process, which reaps all that sessions leave: no news for the zygote.
                if forks.fork_sibling() == 0:
                    session_start.become_session(start)
            finally:
                start.close()
        except (OSError, LookupError) as error:
            # The host's socket has its own reasons.
            lacks = room.lacking(error) if connected else ""
            refused = {"op": "refused", "session": request["session"], "reason": str(error), "lacks": lacks}
            wire.send(self._control, refused)


def _bring_font_cache(options: InterpreterOptions) -> None:
    """Copies the font cache: matplotlib reads it, seconds of work to make, only from a folder it may write to."""
    ready_made = Path(os.environ.get("MPLCONFIGDIR", ""))
    if ready_made.name and ready_made.is_dir() and not os.access(ready_made, os.W_OK):
        folder = Path(options.root) / "matplotlib"
        shutil.copytree(ready_made, folder, dirs_exist_ok=True)
        os.environ["MPLCONFIGDIR"] = str(folder)


def _preload(names: tuple[str, ...]) -> None:
    """Imports what cells are likely to use and warms what is slow at first use."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"  # a thread pool would not survive the fork, and sessions share few cores
    os.environ["MPLBACKEND"] = "Agg"
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError:
            if name in LIGHT:
                raise
    from . import hooks  # here, since the init process has no use for it

    _warm_up()
    _given_names.update(hooks.install())
    rehearsal.run(_given_names)
    forks.after_fork()
    gc.collect()
    gc.freeze()  # objects that no collection touches stay shared between all forks
    memory.rebase()


def _warm_up() -> None:
    import cv2
    from matplotlib import pyplot
    from PIL import Image

    # Its thread pool would not survive a fork.
    cv2.setNumThreads(0)
    Image.init()
    # The first figure loads fonts and renderers, which all sessions then share.
    figure, axes = pyplot.subplots()
    axes.plot([0, 1])
    axes.set_title("a")
    figure.savefig(io.BytesIO(), format="png")
    pyplot.close("all")
