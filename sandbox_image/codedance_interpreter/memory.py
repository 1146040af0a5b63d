"""Makes forks of this process cheap: its memory is put behind a memory file (`sandbox_image/rebase.c`).

Without the compiled helper, which only the image has, nothing happens and forks cost two to three times as much.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import os
import re
from collections.abc import Iterable
from pathlib import Path

HELPER = Path(__file__).with_name("librebase.so")
_PROT_READ, _PROT_WRITE = 1, 2
_NEVER_AGAIN = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (r[-w])-p \S+ \S+ \S+ *(.*)\n")


class _Region(ctypes.Structure):
    _fields_ = [("address", ctypes.c_ulong), ("length", ctypes.c_ulong), ("protection", ctypes.c_int)]


def rebase() -> int:
    """Put every private, written-to mapping of this process but its stack behind a file. Returns how many.

    To be called once, with no other thread running, after the libraries are loaded and before sessions are forked.
    """
    if not HELPER.exists():
        return 0
    helper = ctypes.CDLL(str(HELPER))
    helper.rebase.argtypes = [ctypes.c_int, ctypes.POINTER(_Region), ctypes.c_long, ctypes.c_long]
    helper.rebase.restype = ctypes.c_long
    gc.collect()
    with Path("/proc/self/smaps").open(encoding="utf-8", errors="replace") as mappings:
        regions = private_regions(mappings)
    file = os.memfd_create("zygote", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(file, sum(length for _address, length, _protection in regions))
        array = (_Region * len(regions))(*(_Region(*region) for region in regions))
        replaced = int(helper.rebase(file, array, len(regions), os.sysconf("SC_PAGE_SIZE")))
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, _NEVER_AGAIN)  # all sessions see its pages
        return replaced
    finally:
        os.close(file)


def private_regions(smaps: Iterable[str]) -> list[tuple[int, int, int]]:
    """(address, length, protection) of the mappings in the text of a `smaps` that hold private pages and no code."""
    regions: list[tuple[int, int, int]] = []
    current: tuple[int, int, int] | None = None
    for line in smaps:
        if found := _MAPPING.fullmatch(line):
            start, end = int(found[1], 16), int(found[2], 16)
            protection = _PROT_READ | (_PROT_WRITE if found[3] == "rw" else 0)
            current = None if found[4].startswith("[") and found[4] != "[heap]" else (start, end - start, protection)
        elif "-" in line.split(" ", 1)[0]:
            current = None
        elif current is not None and line.startswith("Anonymous:") and int(line.split()[1]):
            regions.append(current)
    return regions
