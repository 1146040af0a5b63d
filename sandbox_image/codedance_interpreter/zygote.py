"""Zygote: has the scientific libraries in memory and forks sessions, which start warm at the price of a fork."""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import os
import random
import resource
import secrets
import select
import shutil
import signal
import socket
import sys
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from . import (
    display,
    forks,
    limits,
    memory,
    own_modules,
    process_kill,
    room,
    runner,
    session,
    shared_images,
    supervisor,
    wire,
)
from .image_store import ImageStore
from .shared_images import SharedImage
from .wire import Message

LIGHT = (
    *("numpy", "numpy.random", "numpy.linalg", "numpy.fft"),
    *("PIL.Image", "PIL.ImageDraw", "PIL.ImageFont", "PIL.ImageOps", "PIL.ImageFilter", "PIL.ImageEnhance"),
    *("cv2", "matplotlib.pyplot", "matplotlib.patches", "scipy.ndimage"),
)
FULL = (*LIGHT, "scipy.optimize", "scipy.stats", "skimage.measure", "sympy", "pandas")
PRELOADS = {"light": LIGHT, "full": FULL}
CONNECT_SECONDS = 10.0
MOST_DESCRIPTORS = 1 << 16
DECODE_SECONDS = 60
"""Most processor time of the process that decodes an image."""

_given_names: dict[str, object] = {"display": display.show}


@dataclass(frozen=True)
class InterpreterOptions:
    """Options of an interpreter, as its command line has them.

    `socket_path` is the host's socket and `name` the name by which the host addresses this interpreter.
    `own_uids` is true in a container, where PID 1 is root and every session gets a uid. `root` holds the sessions'
    working directories. `preload` names the set of libraries imported before sessions are forked: each costs every cell
    a little, since a fork copies what they have mapped, and spares the session that uses it the import.
    """

    socket_path: str
    name: str
    root: str
    own_uids: bool
    preload: str


def connect(options: InterpreterOptions, hello: Message) -> socket.socket:
    """Opens a connection outward to the host and introduces it."""
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    peer.settimeout(CONNECT_SECONDS)
    peer.connect(options.socket_path)
    peer.settimeout(None)
    wire.send(peer, {"op": "hello", "version": wire.VERSION, "name": options.name, **hello})
    return peer


def run(options: InterpreterOptions) -> NoReturn:
    """Imports the libraries, reports to the host, forks a session for every `open` request until the host leaves."""
    _bring_font_cache(options)
    _preload(PRELOADS[options.preload])
    sys.argv[:] = sys.orig_argv[:] = [""]  # of the init process; cells see a program without arguments
    sys.dont_write_bytecode = True
    # What a fork is to close has lower numbers.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(MOST_DESCRIPTORS, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
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
        """Collects children: sessions, which are nobody's to wait for, and decoders."""
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
                _become_decoder(self._options, request, bounds, self._mapped_bytes, (file, unchecked))
            self._images.decoder_started(pid, key)
        os.close(unchecked)

    def _open(self, request: Message) -> None:
        """Forks one session, which opens a connection of its own; what fails before is answered with `refused`."""
        connected = False
        try:
            images = self._images.images(request["images"])
            peer = connect(self._options, {"role": "session", "session": request["session"]})
            connected = True
            if forks.fork() == 0:
                _become_session(self._options, peer, request, images, self._mapped_bytes)
            peer.close()
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
    forks.after_fork()
    _given_names.update(hooks.install())
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


def _become_decoder(
    options: InterpreterOptions, request: Message, bounds: limits.Limits, mapped_bytes: int, kept: tuple[int, int]
) -> NoReturn:
    """Turns the forked child into one that decodes an image, within the bounds of a session, and ends."""
    try:
        _detach(kept)
        _settle()
        # The memory file is no file of a session, and its size that of the pixels.
        limits.apply(
            replace(bounds, file_bytes=bounds.memory_bytes, processes=1), mapped_bytes, per_uid=options.own_uids
        )
        resource.setrlimit(resource.RLIMIT_CPU, (DECODE_SECONDS, DECODE_SECONDS))
        if options.own_uids:
            _take_uid(int(request["uid"]), int(request["uid"]))
        process_kill.forbid_inspection()
        shared_images.write(*kept, request["data"])
    finally:
        os._exit(0)


def _become_session(
    options: InterpreterOptions, peer: socket.socket, request: Message, images: list[SharedImage], mapped_bytes: int
) -> NoReturn:
    """Turns the forked child into a session: gives up what is the zygote's, forks the runner, supervises it."""
    try:
        # The zygote's connection above all: a session with it could open sessions.
        _detach([peer.fileno(), *(descriptor for image in images for descriptor in image.descriptors)])
        bounds = _bind(options, request, mapped_bytes)
        own, runners = session.make_links()
        pid = forks.fork()
        if pid == 0:
            own.close()
            peer.close()
            _become_runner(options, request, bounds, runners, images)
        runners.close()
        for image in images:
            image.close()
        if options.own_uids:
            _take_uid(real=int(request["uid"]) + 1, effective=int(request["uid"]))
        # After the change of uid, which resets it (prctl(2), PR_SET_DUMPABLE).
        process_kill.forbid_inspection()
        directory = _directory(options, request)
        answer = _answer(own, pid)
        wire.send(peer, answer | {"leader": os.getpid()})
        if answer["op"] == "ready":
            file_bytes = _await_input_images(peer, own, pid)
            keep = request["on_error"] == "keep"
            supervisor.Supervisor(peer, own, pid, bounds, str(directory), keep, file_bytes).serve()
    except BaseException as error:
        _report_unusable(peer, error)
    finally:
        os._exit(1)


def _await_input_images(host: socket.socket, links: session.Links, runner_pid: int) -> int:
    """Waits until the runner has decoded its images; a failure is the answer to the host's first request.

    Returns a bound of their largest file, in bytes: the runner's word, before it has run any cell.
    """
    answer = _answer(links, runner_pid)
    if answer["op"] != "loaded":
        wire.receive(host)
        wire.send(host, {"op": "bad_image", "reason": answer["reason"], "lacks": answer["lacks"]})
        os._exit(0)
    return int(answer["file_bytes"])


def _answer(links: session.Links, runner_pid: int) -> Message:
    """Returns the runner's next message; for one that has died before, the reason."""
    try:
        return wire.receive(links.channel)
    except (EOFError, ConnectionError):
        _, status = os.waitpid(runner_pid, 0)
        lacks = room.lacking_by_end(status)
        return {"op": "unusable", "reason": "the process that decoded it has died", "lacks": lacks}


def _become_runner(
    options: InterpreterOptions,
    request: Message,
    bounds: limits.Limits,
    links: session.Links,
    images: list[SharedImage],
) -> NoReturn:
    """Turns the second child into a runner: in a private directory, under its uid, it takes images and runs cells."""
    try:
        killer: process_kill.ProcessKiller = process_kill.KillTree(os.getppid())
        if options.own_uids:
            uid = int(request["uid"])
            _take_uid(uid, uid)
            killer = process_kill.KillByUid(uid)
        process_kill.forbid_inspection()
        directory = _directory(options, request)
        directory.mkdir(0o700)
        os.chdir(directory)
        _clear_environment(str(directory))
        # Forked processes would all draw the same numbers.
        _new_seeds()
        sys.meta_path.append(own_modules.WorkingDirectoryFinder())
        namespace = session.new_namespace(_given_names)
        state = session.Session(killer, bounds, namespace, keep_on_error=request["on_error"] == "keep")
        for image in images:
            shared_images.await_check(image)
        # The caller goes on while images are decoded.
        wire.send(links.channel, {"op": "ready"})
        session.offer_input_images(state, [shared_images.take(image) for image in images])
        wire.send(links.channel, {"op": "loaded", "file_bytes": state.files.most_bytes})
        gc.freeze()
        runner.serve(state, links)
    except BaseException as error:  # whatever a decoder makes of a broken file is the host's to know
        _report_unusable(links.channel, error)
    finally:
        os._exit(1)


def _report_unusable(peer: socket.socket, error: BaseException) -> None:
    with contextlib.suppress(Exception):
        reason, lacks = f"{type(error).__name__}: {error}"[:500], room.lacking(error)
        if isinstance(error, shared_images.Unusable):
            reason, lacks = str(error), error.lacks
        wire.send(peer, {"op": "unusable", "reason": reason, "lacks": lacks})


def _bind(options: InterpreterOptions, request: Message, mapped_bytes: int) -> limits.Limits:
    """Applies what holds for supervisor and runner alike."""
    _settle()
    process_kill.adopt_orphans()
    bounds = limits.Limits.from_message(request["limits"])
    limits.apply(bounds, mapped_bytes, per_uid=options.own_uids)
    os.umask(0o077)
    return bounds


def _settle() -> None:
    """Makes the caller, forked from the zygote, a process of its own."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _directory(options: InterpreterOptions, request: Message) -> Path:
    return Path(options.root) / str(request["session"])


def _take_uid(real: int, effective: int) -> None:
    """Becomes a session's user for good. A process that `effective` may not kill has another `real` uid."""
    if effective < process_kill.LOWEST_UID:
        raise ValueError(f"uid {effective} is not one a session may have")
    os.setgroups([])
    os.setresgid(effective, effective, effective)
    os.setresuid(real, effective, real)


def _clear_environment(directory: str) -> None:
    os.environ.clear()
    os.environ.update(
        HOME=directory,
        TMPDIR=directory,
        MPLCONFIGDIR=directory,
        PATH="/usr/local/bin:/usr/bin:/bin",
        LANG="C.UTF-8",
    )


def _detach(kept: Collection[int]) -> None:
    """Closes every descriptor inherited from the zygote but `kept`; standard streams lead nowhere."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    first = 3
    for descriptor in sorted(kept):
        os.closerange(first, descriptor)
        first = descriptor + 1
    os.closerange(first, MOST_DESCRIPTORS)
    sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False), encoding="utf-8")


def _new_seeds() -> None:
    import numpy

    random.seed(secrets.randbits(128))
    numpy.random.seed(secrets.randbits(32))
