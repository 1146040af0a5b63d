"""Warm start of Python processes: they are forked from one that has imported what they need.

The processes of a run import the same libraries, a few CPU seconds each. On a machine with few cores that is most of
the time to the first step. `warm_python` imports them once, beside what else a start does.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from codedance_verl.runtime import fork_client

END_SECONDS = 5.0
"""Time for the server to end by itself."""


@contextlib.contextmanager
def warm_python(modules: Sequence[str], environ: Mapping[str, str] | None = None) -> Iterator[Path]:
    """Yields a stand-in for this Python's executable whose processes have `modules` imported already.

    The processes end with the block, at the latest. Where the imports fail, take too long or open an accelerator, it
    starts Python as usual.

    Args:
        modules: to import, in this order.
        environ: variables for the imports, besides those of this process.
    """
    with tempfile.TemporaryDirectory(prefix="codedance-warm-") as folder, contextlib.ExitStack() as cleanup:
        path = Path(folder, "socket")
        listener = cleanup.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        listener.bind(str(path))
        listener.listen(128)
        life, hold = os.pipe()
        launcher = _write_launcher(Path(folder, "python"), path)
        arguments = [str(listener.fileno()), str(life), str(launcher), *modules]
        server = subprocess.Popen(
            [sys.executable, "-m", "codedance_verl.runtime.fork_server", *arguments],
            env={**os.environ, **(environ or {})},
            pass_fds=(listener.fileno(), life),
            stdin=subprocess.DEVNULL,
        )
        os.close(life)
        listener.close()  # the server alone has it, so that no one waits for one that has ended
        cleanup.callback(_end, server, hold)
        yield launcher


def _write_launcher(launcher: Path, path: Path) -> Path:
    """Writes the executable; one file, as multiprocessing takes no arguments of an executable."""
    client = [sys.executable, "-I", "-S", fork_client.__file__, str(path)]
    launcher.write_text(f'#!/bin/sh\nexec {shlex.join(client)} "$@"\n')
    launcher.chmod(0o700)
    return launcher


def _end(server: subprocess.Popen[bytes], hold: int) -> None:
    os.close(hold)
    try:
        server.wait(END_SECONDS)
    except subprocess.TimeoutExpired:  # it still imports
        server.kill()
        server.wait()
