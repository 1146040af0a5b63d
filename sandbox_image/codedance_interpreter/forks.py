"""Forks that run none of Python's fork handlers.

Those run Python in the child at once, and each page that the interpreter touches there is a page to be copied: several
hundred, before the child has done anything. The processes that fork here have one thread and hold no lock, so there is
nothing that the handlers would have to set right; what they drop (files that libraries keep open), `after_fork` drops
before the first fork.
"""

from __future__ import annotations

import ctypes
import os
import platform
import random
import signal

_c = ctypes.PyDLL(None, use_errno=True)  # keeps the interpreter's lock over the call
_c_fork, _c_read, _c_exit = _c.fork, _c.read, _c._exit
_run_handlers_in_child = ctypes.pythonapi.PyOS_AfterFork_Child
_c.syscall.restype = ctypes.c_long
_CLONE = {"x86_64": 56, "aarch64": 220}.get(platform.machine())  # its number among the system calls
_CLONE_PARENT = 0x8000  # of <linux/sched.h>
_byte = ctypes.create_string_buffer(1)


def after_fork() -> None:
    """Runs the handlers here, once: they do no harm in a process with one thread."""
    _run_handlers_in_child()


def fork() -> int:
    """Forks like `os.fork`, without its handlers. Raises `OSError` when there can be no further process."""
    pid = int(_c_fork())
    if pid < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return pid


def fork_sibling() -> int:
    """Forks like `fork`, but the new process is a child of the caller's parent, which hears of its end.

    The C library takes no part, and knows the child by its parent's thread id: good for a process that raises no
    signals, and whose own forks are those of the C library.
    """
    if _CLONE is None:
        return fork()
    # The last four arguments come in another order on other machines; all are null.
    null = ctypes.c_long(0)
    flags = ctypes.c_long(_CLONE_PARENT | signal.SIGCHLD)
    pid = int(_c.syscall(ctypes.c_long(_CLONE), flags, null, null, null, null))
    if pid < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return pid


def sleep_until_woken(descriptor: int) -> None:
    """Sleeps in C until there is a byte to read, then runs the handlers that the fork left out; ends at its end."""
    if _c_read(descriptor, _byte, 1) != 1:
        _c_exit(0)
    seeds = random.getstate()
    _run_handlers_in_child()
    random.setstate(seeds)  # the handlers reseed `random`; a seed set before stays
