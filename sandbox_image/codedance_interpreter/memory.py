"""Cheap forks of this process: fewer mappings, and its memory behind a memory file (`sandbox_image/rebase.c`).

A fork copies the list of mappings, of which each loaded library has four or five, and the page tables of those that
hold private pages. Without the compiled helper, which only the image has, nothing happens and forks cost several times
as much.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

_c = ctypes.CDLL(None)
HELPER = Path(__file__).with_name("librebase.so")
_READ, _WRITE, _EXECUTE = 1, 2, 4
_NEVER_AGAIN = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) ([0-9a-f]+) (\S+ \d+) *(.*)\n")


@dataclass(frozen=True)
class Mapping:
    """An entry of `/proc/self/smaps`: addresses in bytes, `file` as device and inode, `private` pages or not."""

    start: int
    end: int
    permissions: str
    offset: int
    file: str
    name: str
    private: bool = False


class _Region(ctypes.Structure):
    _fields_ = [("address", ctypes.c_ulong), ("length", ctypes.c_ulong), ("protection", ctypes.c_int)]


def rebase() -> None:
    """Puts every private, written-to mapping of this process but its stack behind a file, and joins what can be joined.

    To be called once, with no other thread running, after the libraries are loaded and before sessions are forked.
    """
    if HELPER.exists():
        gc.collect()  # pages of dead objects need not be moved
        _move(private_mappings(_mappings()))
        for start, end in constants_beside_code(_mappings()):
            _c.mprotect(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _READ | _EXECUTE)


def _move(mappings: list[Mapping]) -> None:
    """Puts mappings behind one sealed memory file, all writable: so relocated constants and data become one."""
    helper = ctypes.CDLL(str(HELPER))
    helper.rebase.argtypes = [ctypes.c_int, ctypes.POINTER(_Region), ctypes.c_long, ctypes.c_long]
    helper.rebase.restype = ctypes.c_long
    regions = [_Region(mapping.start, mapping.end - mapping.start, _READ | _WRITE) for mapping in mappings]
    file = os.memfd_create("zygote", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(file, sum(region.length for region in regions))
        helper.rebase(file, (_Region * len(regions))(*regions), len(regions), os.sysconf("SC_PAGE_SIZE"))
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, _NEVER_AGAIN)  # all sessions see its pages
    finally:
        os.close(file)


def private_mappings(mappings: Iterable[Mapping]) -> list[Mapping]:
    """Returns the mappings that hold private pages and no code."""
    return [
        mapping
        for mapping in mappings
        if mapping.private
        and mapping.permissions in ("rw-p", "r--p")
        # Not the stack in use, nor the kernel's own ([vvar], [vdso]).
        and (mapping.name == "[heap]" or not mapping.name.startswith("["))
    ]


def constants_beside_code(mappings: Iterable[Mapping]) -> list[tuple[int, int]]:
    """Returns (start, end) of the read-only parts of libraries that lie next to their code, in file and memory.

    With the same permissions the kernel makes one mapping of them. Constants that could be executed are no risk to a
    process that executes whatever it is given.
    """
    found = []
    for part in _parts_of_files(mappings):
        if any(mapping.permissions == "r-xp" for mapping in part):
            found += [(mapping.start, mapping.end) for mapping in part if mapping.permissions == "r--p"]
    return found


def _parts_of_files(mappings: Iterable[Mapping]) -> list[list[Mapping]]:
    """Returns runs of read-only mappings that each begin where the last one ends, in memory and in the file."""
    parts: list[list[Mapping]] = []
    for mapping in mappings:
        # Entries of smaps are in the order of addresses.
        last = parts[-1][-1] if parts else None
        if mapping.private or mapping.permissions not in ("r--p", "r-xp"):
            continue
        if (
            last is not None
            and (last.end, last.file) == (mapping.start, mapping.file)
            and last.offset + last.end - last.start == mapping.offset
        ):
            parts[-1].append(mapping)
        else:
            parts.append([mapping])
    return parts


def _mappings() -> list[Mapping]:
    with Path("/proc/self/smaps").open(encoding="utf-8", errors="replace") as smaps:
        return parse(smaps)


def parse(smaps: Iterable[str]) -> list[Mapping]:
    """Returns the mappings in the text of a `smaps`."""
    mappings: list[Mapping] = []
    for line in smaps:
        if found := _MAPPING.fullmatch(line):
            start, end, permissions, offset, file, name = found.groups()
            mappings.append(Mapping(int(start, 16), int(end, 16), permissions, int(offset, 16), file, name))
        # Anonymous pages are private copies: of these a fork copies page tables.
        elif line.startswith("Anonymous:") and int(line.split()[1]):
            mappings[-1] = replace(mappings[-1], private=True)
    return mappings
