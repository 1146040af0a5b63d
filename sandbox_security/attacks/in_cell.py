"""Helpers of every attack: the text of this file is run in its session as the first cell. Nothing imports it.

`syscall` makes a system call without any library in between; `forbidden` is for those that must not even reach the
kernel: there only the refusal of the filter counts, not that of the code behind it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

# Numbers on x86_64 and aarch64; None where there is no such call.
NUMBERS: dict[str, tuple[int | None, int | None]] = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "adjtimex": (159, 171),
    "bind": (49, 200),
    "bpf": (321, 280),
    "chroot": (161, 51),
    "clock_settime": (227, 112),
    "clone": (56, 220),
    "clone3": (435, 435),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "fsopen": (430, 430),
    "init_module": (175, 105),
    "inotify_init1": (294, 26),
    "io_setup": (206, 0),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "ioperm": (173, None),
    "iopl": (172, None),
    "ioprio_set": (251, 30),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "landlock_create_ruleset": (444, 444),
    "lookup_dcookie": (212, 18),
    "mbind": (237, 235),
    "memfd_secret": (447, 447),
    "migrate_pages": (256, 238),
    "mlockall": (151, 230),
    "modify_ldt": (154, None),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "move_pages": (279, 239),
    "mq_open": (240, 180),
    "msgget": (68, 186),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "personality": (135, 92),
    "pidfd_getfd": (438, 438),
    "pidfd_open": (434, 434),
    "pivot_root": (155, 41),
    "pkey_alloc": (329, 289),
    "prctl": (157, 167),
    "process_madvise": (440, 440),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "reboot": (169, 142),
    "remap_file_pages": (216, 234),
    "request_key": (249, 218),
    "sched_setattr": (314, 274),
    "seccomp": (317, 277),
    "semget": (64, 190),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "settimeofday": (164, 170),
    "shmget": (29, 194),
    "splice": (275, 76),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "sync": (162, 81),
    "syslog": (103, 116),
    "tee": (276, 77),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
    "vhangup": (153, 58),
    "vmsplice": (278, 75),
}
_REFUSALS = (errno.EPERM, errno.ENOSYS, errno.EAFNOSUPPORT)
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def breach(what: object) -> None:
    """Say that the attack got what it wanted."""
    print(f"BREACH: {what}", flush=True)


def syscall(name: str, *arguments: Any) -> int:
    """Makes the call and returns what it does; raises `OSError` when it fails."""
    number = NUMBERS[name][platform.machine() == "aarch64"]
    if number is None:
        raise PermissionError(f"{name} does not exist on this machine")
    ctypes.set_errno(0)
    wide = [ctypes.c_long(item) if isinstance(item, int) else item for item in arguments]
    result: int = _libc.syscall(ctypes.c_long(number), *wide)
    if result == -1:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
    return result


def forbidden(name: str, *arguments: Any) -> None:
    """Makes a call that the filter must refuse: raises `PermissionError` when it does, else reports a breach."""
    try:
        breach(f"{name} returned {syscall(name, *arguments)}")
    except OSError as error:
        if error.errno not in _REFUSALS:
            breach(f"{name} reached the kernel, which answered {errno.errorcode.get(error.errno or 0)}")
        raise PermissionError(str(error)) from None


def no_socket(family: int, kind: int = socket.SOCK_STREAM, protocol: int = 0) -> None:
    """Tries to make a socket of a family that must not exist here."""
    try:
        socket.socket(family, kind, protocol)
        breach(f"a socket of family {family}")
    except OSError as error:
        if error.errno not in _REFUSALS:
            breach(f"family {family} reached the kernel: {error}")
        raise PermissionError(str(error)) from None


def until(condition: Callable[[], bool], seconds: float = 8.0) -> None:
    """Waits for what another process or thread is about to do."""
    ended = time.monotonic() + seconds
    while not condition() and time.monotonic() < ended:
        time.sleep(0.01)


def sockets() -> Iterator[socket.socket]:
    """Every socket this process has, duplicated."""
    for descriptor in range(3, 256):
        try:
            yield socket.socket(fileno=os.dup(descriptor))
        except OSError:
            continue


def supervisor_channel() -> socket.socket:
    """The connection over which the runner of this cell reports its end to the supervisor of the session."""
    return _pair_ends()[0]


def checkpoint_call() -> socket.socket:
    """The connection over which the supervisor wakes a checkpoint, and is answered."""
    return _pair_ends()[1]


def _pair_ends() -> list[socket.socket]:
    return [item for item in sockets() if item.family == socket.AF_UNIX and not item.getpeername()]


def mark() -> bytes:
    """Mark that the reports of this cell, and of no other, bear."""
    caller = sys._getframe()
    while caller.f_back is not None:
        caller = caller.f_back
        if isinstance(caller.f_locals.get("mark"), dict):
            return bytes(caller.f_locals["mark"]["cell"])
    raise LookupError("no mark")


def success(cell: bytes) -> bytes:
    """A forged report that the cell of that mark has succeeded."""
    return frame({"cell": cell, "done": {"error": None, "truncated": []}})


def host_connection() -> socket.socket | None:
    """The connection to the host, if this process has it."""
    for item in sockets():
        try:
            if item.family == socket.AF_UNIX and str(item.getpeername()).endswith("host.sock"):
                return item
        except OSError:
            continue
    return None


def when_idle(act: Callable[[], object], after_s: float = 0.3) -> None:
    """Calls `act` in this process some time after the cell has ended; the runner finds no way to stop the timer."""
    signal.signal(signal.SIGALRM, lambda *_: act())
    setitimer, signal.setitimer = signal.setitimer, lambda *_: (0.0, 0.0)
    setitimer(signal.ITIMER_REAL, after_s)


def frame(message: object) -> bytes:
    """A frame of the wire format."""
    import msgpack  # type: ignore[import-untyped]

    body: bytes = message if isinstance(message, bytes) else msgpack.packb(message, use_bin_type=True)
    return struct.pack(">I", len(body)) + body


def all_forbidden(*names: str) -> None:
    """Makes several calls that the filter must refuse, with arguments that change nothing where it does not."""
    for name in names:
        try:
            forbidden(name, 0, 0, 0, 0, 0, 0)
        except PermissionError:
            continue
    raise PermissionError(", ".join(names))


def unreadable(*paths: str) -> None:
    """Tries to read files that must be closed or not there; raises what the last of them raised."""
    refusal: OSError | None = None
    for path in paths:
        try:
            with open(path, "rb") as file:  # noqa: PTH123
                breach(f"{path}: {file.read(64)!r}")
        except OSError as error:
            refusal = error
    if refusal is not None:
        raise refusal


def unwritable(*paths: str) -> None:
    """Tries to write files that must be closed; raises what the last of them raised."""
    refusal: OSError | None = None
    for path in paths:
        try:
            with open(path, "ab") as file:  # noqa: PTH123
                file.write(b"0")
            breach(f"wrote to {path}")
        except OSError as error:
            refusal = error
    if refusal is not None:
        raise refusal
