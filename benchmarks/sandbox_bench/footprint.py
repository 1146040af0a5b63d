"""Cost of processes: memory, as the proportional share of what they have mapped and their page tables; CPU time.

Page tables belong to the sum because a session is a fork: it shares nearly all pages with the others, and pays for a
table of its own to share them. CPU time is that of control groups where processes have one of their own, as those of
containers do: it holds what has already ended.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

KIB = 1024
_CGROUPS = Path("/sys/fs/cgroup")
_TICKS = os.sysconf("SC_CLK_TCK")
_CPU_FIELDS = slice(11, 15)  # of /proc/PID/stat after the name: user, system, and both of children waited for


def memory_bytes(pids: Iterable[int]) -> int:
    """PSS plus page tables of processes, in bytes. Those that have ended, or may not be looked at, count nothing."""
    return sum(_process_bytes(pid) for pid in pids)


def cpu_seconds(pids: Iterable[int]) -> dict[str, float]:
    """CPU time used so far, by control group; under `""` that of processes in the caller's group, and their children.

    Two readings compare only where they have the same keys.
    """
    own = _cpu_group(os.getpid())
    used: dict[str, float] = {}
    for pid in pids:
        with contextlib.suppress(OSError):  # it has ended meanwhile
            group = _cpu_group(pid)
            if group is None or group == own:
                used[""] = used.get("", 0.0) + _process_seconds(pid)
            elif str(group) not in used:
                used[str(group)] = _group_seconds(group)
    return used


def processes_naming(words: Collection[str]) -> list[int]:
    """Processes whose command line holds one of `words`; forks inherit the command line of what they were forked from.

    Reads what this user may read, across containers too, as the host sees them.
    """
    return [pid for pid, line in _command_lines() if any(word in line for word in words)]


def descendants(pids: Collection[int]) -> list[int]:
    """`pids` and all processes that descend from them at this moment."""
    parents = dict(_parents())
    found = set(pids)
    grown = True
    while grown:
        children = {pid for pid, parent in parents.items() if parent in found and pid not in found}
        found |= children
        grown = bool(children)
    return sorted(found)


def _process_bytes(pid: int) -> int:
    folder = Path("/proc") / str(pid)
    try:
        shared = _field((folder / "smaps_rollup").read_text(encoding="ascii"), "Pss:")
        tables = _field((folder / "status").read_text(encoding="ascii", errors="replace"), "VmPTE:")
    except OSError:
        return 0
    return (shared + tables) * KIB


def _process_seconds(pid: int) -> float:
    stat = (Path("/proc") / str(pid) / "stat").read_text(encoding="ascii", errors="replace")
    return sum(map(int, stat.rpartition(")")[2].split()[_CPU_FIELDS])) / _TICKS


def _cpu_group(pid: int) -> Path | None:
    """The file with the CPU time of the process's control group, of version 1 where there is one, else 2."""
    lines = (Path("/proc") / str(pid) / "cgroup").read_text(encoding="utf-8").splitlines()
    groups = {controllers: path.lstrip("/") for _, controllers, path in (line.split(":", 2) for line in lines)}
    first = [_CGROUPS / "cpuacct" / path / "cpuacct.usage" for names, path in groups.items() if "cpuacct" in names]
    second = [_CGROUPS / path / "cpu.stat" for names, path in groups.items() if not names]
    return next((file for file in (*first, *second) if file.is_file()), None)


def _group_seconds(file: Path) -> float:
    words = file.read_text(encoding="ascii").split()
    return int(words[0]) / 1e9 if file.name == "cpuacct.usage" else int(words[words.index("usage_usec") + 1]) / 1e6


def _field(text: str, name: str) -> int:
    """The number, in KiB, of the line that starts with `name`; 0 where there is none (kernel threads, zombies)."""
    line = next((line for line in text.splitlines() if line.startswith(name)), "")
    return int(line.split()[1]) if line else 0


def _command_lines() -> Iterator[tuple[int, str]]:
    for folder in _process_folders():
        with contextlib.suppress(OSError):
            yield int(folder.name), (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")


def _parents() -> Iterator[tuple[int, int]]:
    for folder in _process_folders():
        with contextlib.suppress(OSError):
            stat = (folder / "stat").read_text(encoding="ascii", errors="replace")
            yield int(folder.name), int(stat.rpartition(")")[2].split()[1])


def _process_folders() -> Iterator[Path]:
    return (entry for entry in Path("/proc").iterdir() if entry.name.isdigit())
