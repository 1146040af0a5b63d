"""Fork server: a process that imports modules once, and is forked for each Python process that needs them.

`python -m codedance_verl.runtime.fork_server LISTENER LIFE EXECUTABLE MODULE ...`, where LISTENER is the file
descriptor of a listening Unix socket, LIFE that of a pipe whose end is the server's, and EXECUTABLE the path of the
stand-in for Python that asks it. `warm_start` starts it, `fork_client` is behind the stand-in.

A fork is safe as long as no thread holds a lock and no accelerator is open. The imports leave threads of OpenBLAS and
jemalloc alone, which both take care of forks by themselves. A server in which something has opened CUDA ends.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import logging
import marshal
import multiprocessing
import os
import resource
import runpy
import selectors
import signal
import socket
import struct
import subprocess
import sys
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codedance_verl.runtime.fork_client import READY, REFUSED

REQUEST_SECONDS = 10.0
"""Longest wait for the parts of a request, whose sender has nothing else to do."""
_MOST_FDS = 200
_OF_CUDA = ("/dev/nvidia-uvm", "/dev/kfd")  # open once CUDA, or ROCm, has been initialised; looking for devices is not
_READ_WHEN_LOADED = (
    *("LD_", "PYTHON", "OMP_", "KMP_", "GOMP_", "MALLOC_", "MKL_", "OPENBLAS_", "TORCHDYNAMO_"),
    *("HF_", "HUGGINGFACE_", "TRANSFORMERS_", "VLLM_BATCH_"),
)
"""Variables that libraries read when they are loaded: a process with others of these cannot be forked."""
_READ_LATER = ("OMP_NUM_THREADS", "PYTHONBREAKPOINT", "PYTHONUNBUFFERED", "HF_TOKEN")
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """A Python process to be: its command line behind the executable, and all that it inherits.

    Attributes:
        command: options, then a script, `-c CODE` or `-m MODULE`, then arguments.
        environ: environment variables.
        directory: working directory.
        fds: its file descriptors, by the numbers that it knows them by.
        group: process group of the one that asks.
        blocked: numbers of blocked signals.
        ignores_interrupts: whether SIGINT is ignored.
        open_files: soft and hard limit on the number of open files.
        nice: value of `nice`, -20 to 19.
        connection: to the one that asks; open for as long as the process lives.
    """

    command: list[str]
    environ: dict[str, str]
    directory: str
    fds: dict[int, int]
    group: int
    blocked: list[int]
    ignores_interrupts: bool
    open_files: tuple[int, int]
    nice: int
    connection: socket.socket


def main(arguments: Sequence[str]) -> None:
    """Imports and serves until the pipe ends. In each forked process it is the main function of that one."""
    listener, life, executable, *modules = arguments
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one whose pipe this is gets it, and ends the pipe
    given = dict(os.environ)
    for module in modules:
        importlib.import_module(module)
    if opened := _accelerators():
        _logger.warning("importing has opened %s, so processes are not forked from here", ", ".join(opened))
        return
    gc.collect()
    gc.freeze()  # a collection would write to each object, and so copy every page that processes share
    # a library may set variables for what it starts, as OpenCV does; who asks may have imported it too
    environs = given, dict(os.environ)
    request = Server(socket.socket(fileno=int(listener)), int(life), environs).serve()
    if request is not None:
        become(request, executable)


class Server:
    """Loop of the server."""

    def __init__(self, listener: socket.socket, life: int, environs: Sequence[dict[str, str]]) -> None:
        self._listener = listener
        self._life = life
        self._clients: dict[int, socket.socket] = {}
        self._environs = environs
        self._died, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wake = wake
        self._selector = selectors.DefaultSelector()
        for source in (self._listener, self._life, self._died):
            self._selector.register(source, selectors.EVENT_READ)

    def serve(self) -> Request | None:
        """Returns None when the pipe ends, and in a forked process what that one is to run."""
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        try:
            return self._loop()
        finally:
            self._kill_all()

    def _loop(self) -> Request | None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._listener:
                    if (request := self._accept()) is not None:
                        return request
                elif key.fileobj == self._life:
                    return None
                elif key.fileobj == self._died:
                    self._reap()
                else:
                    self._end(key.data)

    def _accept(self) -> Request | None:
        """Forks for the next client; returns its request in the new process."""
        client = self._listener.accept()[0]
        client.settimeout(REQUEST_SECONDS)
        try:
            client.sendall(READY)
            request = receive(client)
        except (OSError, EOFError, ValueError):  # it has gone, and starts by itself
            client.close()
            return None
        child, reason = REFUSED, refusal(request, self._environs)
        if not reason:
            try:
                child = os.fork()
            except OSError as error:  # no memory, or too many processes
                reason = str(error)
            else:
                if child == 0:
                    self._leave()
                    return request
        if reason:
            _logger.warning("a process starts without what is imported here: %s", reason)
        for fd in request.fds.values():
            os.close(fd)
        with contextlib.suppress(OSError):
            client.sendall(struct.pack("!i", child))
        if child == REFUSED:
            client.close()
        else:
            self._clients[child] = client
            self._selector.register(client, selectors.EVENT_READ, data=child)
        return None

    def _reap(self) -> None:
        """Tells each client whose process has ended how it ended."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._died, 4096)
        while True:
            try:
                child, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if child == 0:
                return
            client = self._clients.pop(child, None)
            if client is not None:
                with contextlib.suppress(OSError):
                    client.sendall(struct.pack("!i", os.waitstatus_to_exitcode(status)))
                self._selector.unregister(client)
                client.close()

    def _end(self, child: int) -> None:
        """Kills the process of a client that has gone, which was killed itself."""
        client = self._clients.pop(child, None)
        if client is None:  # the process has ended too, and was reaped since the selector told of both
            return
        self._selector.unregister(client)
        client.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)

    def _kill_all(self) -> None:
        """Kills the processes that are left: nobody is there any more to end them. A forked process has none."""
        for child in self._clients:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)

    def _leave(self) -> None:
        """Gives up what is the server's, in a process forked from it."""
        clients, self._clients = self._clients, {}
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._selector.close()
        for open_socket in (self._listener, *clients.values()):
            open_socket.close()
        for fd in (self._life, self._died, self._wake):
            os.close(fd)


def receive(client: socket.socket) -> Request:
    """Returns the request of a client.

    Raises:
        EOFError: it has gone.
        OSError: it does not go on.
    """
    header, fds, _, _ = socket.recv_fds(client, 4, _MOST_FDS)
    body = b""
    if len(header) == 4:
        length = struct.unpack("!I", header)[0]
        while len(body) < length and (part := client.recv(length - len(body))):
            body += part
    if not body:
        raise EOFError
    content: dict[str, Any] = marshal.loads(body)
    numbers = content.pop("fds")
    if len(numbers) != len(fds):
        raise EOFError
    return Request(fds=dict(zip(numbers, fds, strict=True)), connection=client, **content)


def refusal(request: Request, environs: Sequence[Mapping[str, str]]) -> str:
    """Returns the reason for which a process cannot be forked here; empty for none.

    Args:
        request: of the process.
        environs: variables before and after the imports; the process may have either value of each.
    """
    options, _ = split(request.command)
    own = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # as multiprocessing passes them on
    if strange := [option for option in options if option not in ("-u", *own)]:
        return f"options {strange}"
    names = {*request.environ}.union(*environs)
    early = sorted(name for name in names if name.startswith(_READ_WHEN_LOADED) and name not in _READ_LATER)
    other = [name for name in early if request.environ.get(name) not in [environ.get(name) for environ in environs]]
    return ", ".join(f"{name}={request.environ.get(name)}" for name in other)


def split(command: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns options of Python's, and the rest of a command line, which begins with a script, `-c` or `-m`."""
    for place, argument in enumerate(command):
        if argument in ("-c", "-m") or not argument.startswith("-"):
            return list(command[:place]), list(command[place:])
    return list(command), []


def become(request: Request, executable: str) -> None:
    """Turns this process into the requested one, and runs it. `executable` starts what multiprocessing spawns there."""
    _take_limits(request)
    _take_files(request)
    with contextlib.suppress(PermissionError, ProcessLookupError):  # of another session, or gone
        os.setpgid(0, request.group)
    if not request.ignores_interrupts:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, request.blocked)
    os.environ.clear()
    os.environ.update(request.environ)
    os.chdir(request.directory)
    multiprocessing.set_executable(executable)
    _adjust_libraries()
    _run(split(request.command)[1])


def _adjust_libraries() -> None:
    """Does again what libraries do when they are loaded, and what must not be the same in each process."""
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # else all would draw the same numbers; Python's `random` does it by itself
    if "torch" in sys.modules and os.environ.get("OMP_NUM_THREADS"):
        sys.modules["torch"].set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def _take_limits(request: Request) -> None:
    """Takes over limits; what only the privileged may have back is left as it is here."""
    with contextlib.suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, request.open_files)
    os.nice(max(request.nice - os.nice(0), 0))


def _take_files(request: Request) -> None:
    """Gives the received files the numbers that the process knows them by; closes nothing but their copies."""
    safe = max([*request.fds, *request.fds.values(), request.connection.fileno()]) + 1
    connection = os.dup2(request.connection.detach(), safe, inheritable=False)
    copies = {number: os.dup2(fd, safe + 1 + place) for place, (number, fd) in enumerate(request.fds.items())}
    for fd in request.fds.values():
        os.close(fd)
    for number, copy in copies.items():
        os.dup2(copy, number)
        os.close(copy)
    # held, not used: its end tells the one that asked when this process ends
    globals()["_connection"] = connection


def _run(command: list[str]) -> None:
    """Runs what stands behind Python's own options, as Python does."""
    first, *rest = command
    if first == "-c":
        sys.argv = ["-c", *rest[1:]]
        sys.path[0] = ""
        main_module = types.ModuleType("__main__")
        sys.modules["__main__"] = main_module
        exec(compile(rest[0], "<string>", "exec"), vars(main_module))
    elif first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = command
        sys.path[0] = str(Path(first).resolve().parent)
        runpy.run_path(first, run_name="__main__")


def _accelerators() -> list[str]:
    """Returns the devices that this process holds open, and that do not survive a fork."""
    found = set()
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(str(path.readlink()))
    return sorted(found.intersection(_OF_CUDA))


if __name__ == "__main__":
    main(sys.argv[1:])
