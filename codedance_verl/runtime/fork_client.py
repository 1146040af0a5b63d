"""Stand-in for a Python executable: has a fork server run a command line, or starts Python where none answers.

`python -I -S fork_client.py SOCKET [OPTION ...] SCRIPT|-c CODE|-m MODULE [ARGUMENT ...]`. It needs a little of the
standard library alone and is run by its path, as it is to cost nothing. It passes its open files on, forwards signals
and ends as the process that it asked for. `fork_server` has the other end.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import resource
import signal
import socket
import struct
import sys
from collections.abc import Sequence

READY_SECONDS = 90.0
"""Longest wait for a server that still imports: ten times what it takes on cores of its own."""
READY, REFUSED = b"r", 0
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def main(arguments: Sequence[str]) -> int:
    """Runs a command line by the server at the first argument; returns its exit code."""
    path, *command = arguments
    try:
        connection, pid = _ask(path, command)
    except OSError:
        pid = REFUSED
    if pid == REFUSED:
        os.execv(sys.executable, [sys.executable, *command])
    for number in _FORWARDED:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda received, _: _send(pid, received))
    status = connection.recv(4)
    # the server has gone, and so has the process, which holds this connection too
    code = struct.unpack("!i", status)[0] if len(status) == 4 else 1
    if code < 0:
        if -code in _FORWARDED:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def _ask(path: str, command: list[str]) -> tuple[socket.socket, int]:
    """Returns the connection and the id of the new process, `REFUSED` where the server cannot stand in.

    Raises:
        OSError: no server answers in time.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(READY_SECONDS)
    connection.connect(path)
    if connection.recv(1) != READY:
        raise ConnectionError
    fds = sorted({int(name) for name in os.listdir("/proc/self/fd")} - {connection.fileno()})  # noqa: PTH208
    fds = [fd for fd in fds if _is_open(fd)]  # without the one that has listed them
    request = marshal.dumps(
        {
            "command": command,
            "environ": dict(os.environ),
            "directory": os.getcwd(),  # noqa: PTH109  # pathlib costs more than all else here
            "fds": fds,
            "group": os.getpgrp(),
            "blocked": [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())],
            "ignores_interrupts": signal.getsignal(signal.SIGINT) is signal.SIG_IGN,
            "open_files": resource.getrlimit(resource.RLIMIT_NOFILE),
            "nice": os.nice(0),
        }
    )
    socket.send_fds(connection, [struct.pack("!I", len(request))], fds)
    connection.sendall(request)
    answer = connection.recv(4)
    if len(answer) < 4:
        raise ConnectionError
    connection.settimeout(None)
    return connection, struct.unpack("!i", answer)[0]


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
