"""Start of what the zygote forks: the two processes of a session, and those that decode images.

In a fresh fork every page that Python touches is one to be copied. So what is the same for all sessions is done once
(`prepare`), what can be done before the fork is done there (`SessionStart`), and the rest is flat.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import random
import resource
import signal
import socket
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NoReturn

from . import (
    forks,
    input_images,
    limits,
    own_modules,
    process_kill,
    room,
    runner,
    session,
    shared_images,
    supervisor,
    wire,
)
from .host_connection import InterpreterOptions
from .limits import Limits, Rlimit
from .session import Links, Session
from .shared_images import SharedImage
from .wire import Message

MOST_DESCRIPTORS = 1 << 16
DECODE_SECONDS = 60
"""Most processor time of the process that decodes an image."""


def prepare() -> None:
    """Does once, in the zygote, what would be the same in each of its forks."""
    os.umask(0o077)
    # What a fork is to close has lower numbers.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(MOST_DESCRIPTORS, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    os.environ.clear()
    os.environ.update(PATH="/usr/local/bin:/usr/bin:/bin", LANG="C.UTF-8")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False), encoding="utf-8")
    sys.meta_path.append(own_modules.WorkingDirectoryFinder())


@dataclass(frozen=True)
class Bounds:
    """Limits of a session, and the rlimits that they are for its processes."""

    limits: Limits
    rlimits: tuple[Rlimit, ...]

    @classmethod
    def of(cls, message: Mapping[str, int], mapped_bytes: int, per_uid: bool) -> Bounds:
        """Reads the map of a request; see `limits.rlimits`."""
        return _bounds(mapped_bytes, per_uid, *message.items())


@lru_cache(maxsize=1)  # all sessions of a host have the same
def _bounds(mapped_bytes: int, per_uid: bool, *message: tuple[str, int]) -> Bounds:
    bounds = Limits.from_message(dict(message))
    return Bounds(bounds, limits.rlimits(bounds, mapped_bytes, per_uid))


@dataclass(frozen=True)
class SessionStart:
    """Session before its fork: connections, images, and the state of the runner to be. `uid` is 0 without one."""

    host: socket.socket
    own: Links
    runners: Links
    images: list[SharedImage]
    state: Session
    uid: int
    directory: str
    niceness: int
    rlimits: tuple[Rlimit, ...]

    @classmethod
    def of(
        cls,
        options: InterpreterOptions,
        request: Message,
        host: socket.socket,
        images: list[SharedImage],
        bounds: Bounds,
        given_names: Mapping[str, object],
    ) -> SessionStart:
        """Makes what an `open` request asks for. Raises `OSError` where there are no more descriptors."""
        uid = int(request["uid"]) if options.own_uids else 0
        keep = request["on_error"] == "keep"
        state = Session(
            process_kill.KillByUid(uid), bounds.limits, session.new_namespace(given_names), keep_on_error=keep
        )
        directory = f"{options.root}/{request['session']}"
        return cls(host, *session.make_links(), images, state, uid, directory, options.niceness, bounds.rlimits)

    @property
    def descriptors(self) -> Iterable[int]:
        """What both processes are to inherit, or one of them."""
        ends = (self.own.channel, self.own.wake, self.runners.channel, self.runners.wake, self.host)
        kept = [self.own.capture, *(end.fileno() for end in ends)]
        for image in self.images:
            kept += image.descriptors
        return kept

    def close(self) -> None:
        """Closes, in the zygote, what is the session's now; the images stay open for others."""
        self.host.close()
        self.own.close()
        self.runners.close()
        os.close(self.own.capture)


def become_session(start: SessionStart) -> NoReturn:
    """Turns the forked child into a session: gives up what is the zygote's, forks the runner, supervises it."""
    try:
        # The zygote's connection above all: a session with it could open sessions.
        _detach(start.descriptors)
        process_kill.adopt_orphans()
        for which, bound in start.rlimits:
            resource.setrlimit(which, bound)
        pid = forks.fork()
        if pid == 0:
            start.own.close()
            start.host.close()
            _become_runner(start)
        start.runners.close()
        _close(start.images)
        if start.uid:
            _take_uid(real=start.uid + 1, effective=start.uid)
        # After the change of uid, which resets it (prctl(2), PR_SET_DUMPABLE).
        process_kill.forbid_inspection()
        answer = _answer(start.own, pid)
        wire.send(start.host, answer | {"leader": os.getpid()})
        if answer["op"] == "ready":
            file_bytes = _await_input_images(start.host, start.own, pid)
            state = start.state
            supervisor.Supervisor(
                start.host, start.own, pid, state.limits, start.directory, state.keep_on_error, file_bytes
            ).serve()
    except BaseException as error:
        _report_unusable(start.host, error)
    finally:
        os._exit(1)


def _become_runner(start: SessionStart) -> NoReturn:
    """Turns the second child into a runner: in a private directory, under its uid, it takes images and runs cells."""
    try:
        if start.uid:
            _take_uid(start.uid, start.uid)
        else:
            start.state.killer = process_kill.KillTree(os.getppid())
        process_kill.forbid_inspection()
        os.nice(start.niceness)
        os.mkdir(start.directory, 0o700)  # noqa: PTH102  pathlib would be hundreds of pages
        os.chdir(start.directory)
        environ = os.environ
        environ["HOME"] = environ["TMPDIR"] = environ["MPLCONFIGDIR"] = start.directory
        _new_seeds()
        for image in start.images:
            shared_images.await_check(image)
        # The caller goes on while images are decoded.
        wire.send(start.runners.channel, {"op": "ready"})
        images = [shared_images.take(image) for image in start.images]
        _close(start.images)
        session.offer_input_images(start.state, images, start.directory)
        wire.send(start.runners.channel, {"op": "loaded", "file_bytes": start.state.files.most_bytes})
        gc.freeze()
        runner.serve(start.state, start.runners)
    except BaseException as error:
        _report_unusable(start.runners.channel, error)
    finally:
        os._exit(1)


def become_decoder(uid: int, bounds: Limits, mapped_bytes: int, file: int, unchecked: int, data: bytes) -> NoReturn:
    """Turns the forked child into one that decodes an image, within the bounds of a session, and ends.

    `uid` is 0 without one of its own. `file` and `unchecked` are those of `shared_images.write`.
    """
    try:
        _detach((file, unchecked))
        # The memory file is no file of a session, and its size that of the pixels.
        larger = replace(bounds, file_bytes=bounds.memory_bytes, processes=1)
        for which, bound in limits.rlimits(larger, mapped_bytes, per_uid=uid > 0):
            resource.setrlimit(which, bound)
        # The soft limit ends it by SIGXCPU, which is not taken for a lack of memory as SIGKILL is.
        resource.setrlimit(resource.RLIMIT_CPU, (DECODE_SECONDS, DECODE_SECONDS + 1))
        if uid:
            _take_uid(uid, uid)
        process_kill.forbid_inspection()
        input_images.decode_without_threads(data)
        shared_images.write(file, unchecked, data)
    finally:
        os._exit(0)


def _close(images: Iterable[SharedImage]) -> None:
    """Closes the descriptors of images, of which a question may have one twice."""
    for image in dict.fromkeys(images):
        image.close()


def _await_input_images(host: socket.socket, links: Links, runner_pid: int) -> int:
    """Waits until the runner has its images; a failure is the answer to the host's first request.

    Returns a bound of their largest file, in bytes: the runner's word, before it has run any cell.
    """
    answer = _answer(links, runner_pid)
    if answer["op"] != "loaded":
        wire.receive(host)
        wire.send(host, {"op": "bad_image", "reason": answer["reason"], "lacks": answer["lacks"]})
        os._exit(0)
    return int(answer["file_bytes"])


def _answer(links: Links, runner_pid: int) -> Message:
    """Returns the runner's next message; for one that has died before, the reason."""
    try:
        return wire.receive(links.channel)
    except (EOFError, ConnectionError):
        _, status = os.waitpid(runner_pid, 0)
        return {"op": "unusable", "reason": "it has died while it started", "lacks": room.lacking_by_end(status)}


def _report_unusable(peer: socket.socket, error: BaseException) -> None:
    with contextlib.suppress(Exception):
        reason, lacks = f"{type(error).__name__}: {error}"[:500], room.lacking(error)
        if isinstance(error, shared_images.Unusable):
            reason, lacks = str(error), error.lacks
        wire.send(peer, {"op": "unusable", "reason": reason, "lacks": lacks})


def _detach(kept: Iterable[int]) -> None:
    """Makes the caller, forked from the zygote, a process of its own.

    It keeps no descriptor but `kept`; standard streams lead nowhere.
    """
    os.dup2(0, 1)
    os.dup2(0, 2)
    first = 3
    for descriptor in sorted(kept):
        os.closerange(first, descriptor)
        first = descriptor + 1
    os.closerange(first, MOST_DESCRIPTORS)
    os.setsid()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _take_uid(real: int, effective: int) -> None:
    """Becomes a session's user for good. A process that `effective` may not kill has another `real` uid."""
    if effective < process_kill.LOWEST_UID:
        raise ValueError(f"uid {effective} is not one a session may have")
    os.setgroups([])
    os.setresgid(effective, effective, effective)
    os.setresuid(real, effective, real)


def _new_seeds() -> None:
    """Seeds the generators: forked processes would all draw the same numbers."""
    import numpy

    seeds: Any = os.urandom(20)
    random.seed(seeds[:16])
    numpy.random.seed(int.from_bytes(seeds[16:], "little"))
