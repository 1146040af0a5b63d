"""Reader of trajectory files into the tables of an index: what was written since, the newest step first.

Where a run was resumed, a step lies in files of both tries. Of one record, variant and sample in a step the
rollout in the file that was written last stays, which is what `codedance_verl.evaluation` counts: files of a step are
read in the order of their times, and what is read takes the place of what was.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from codedance_verl.trajectories.lines import Line, whole_lines
from codedance_verl.trajectories.runs import LogFile, Run, find_runs
from codedance_verl.trajectories.summary import COLUMNS, MAX_NAME, QUOTED_COLUMNS, Summary
from codedance_verl.trajectories.tables import Tables

BATCH = 500
"""Rows written at once."""

EDGE_BYTES = 512
"""Of the beginning and of the end of what was read of a file; they show whether it only grew."""

_INSERT = (
    f"INSERT INTO trajectories (run, file, at, length, {QUOTED_COLUMNS}) VALUES ({', '.join('?' * (4 + len(COLUMNS)))})"
)
_OF_ITS_STEP = "(SELECT run, split, step FROM files WHERE id = ?)"


@dataclass(frozen=True)
class _File:
    """A file as it lies on the disk now, and the number of its run."""

    log: LogFile
    run: int
    status: os.stat_result


_Entry = tuple[int, int, Summary | None]
"""A line without what it holds: offset and bytes in its file, and its summary unless it is broken."""


def read_new(tables: Tables, root: Path) -> Iterator[int]:
    """Bring the tables up to what lies below `root`; yields how many rows were added after each batch."""
    runs = {run.name: run for run in find_runs(root)}
    ids = _match_runs(tables, runs)
    files = [file for name, run in runs.items() for file in _files(run, ids[name])]
    # Newest steps first, as pages show them; within a step by time, since later tries replace earlier ones.
    files.sort(key=lambda file: (-file.log.step, file.status.st_mtime_ns, file.log.path.name))
    _forget_changed(tables, {str(file.log.path): file for file in files})
    for file in files:
        yield from _read(tables, file)


def _match_runs(tables: Tables, runs: dict[str, Run]) -> dict[str, int]:
    with tables.transaction() as db:
        known = {name: (number, folder) for number, name, folder in db.execute("SELECT id, name, folder FROM runs")}
        for name, (number, folder) in known.items():
            if name not in runs or str(runs[name].folder) != folder:
                for table, column in (("trajectories", "run"), ("files", "run"), ("runs", "id")):
                    db.execute(f"DELETE FROM {table} WHERE {column} = ?", (number,))
        added = [(name, str(run.folder)) for name, run in runs.items()]
        db.executemany("INSERT OR IGNORE INTO runs (name, folder) VALUES (?, ?)", added)
        return dict(db.execute("SELECT name, id FROM runs"))


def _files(run: Run, number: int) -> Iterator[_File]:
    for log in run.files():
        try:
            yield _File(log, number, log.path.stat())
        except FileNotFoundError:  # retention deleted the step in between
            continue


def _forget_changed(tables: Tables, present: dict[str, _File]) -> None:
    """Forget files that are gone or were rewritten."""
    known = tables.db.execute("SELECT id, path, inode, changed, read_to, edges FROM files").fetchall()
    for number, path, *was in known:
        if path not in present or not _only_grew(present[path], *was):
            _forget_step(tables, number)


def _only_grew(file: _File, inode: int, changed: int, read_to: int, edges: bytes) -> bool:
    if file.status.st_ino != inode or file.status.st_size < read_to:
        return False
    # One that was rewritten in place may be larger too: the hash of both ends of what was read shows it.
    return file.status.st_mtime_ns == changed or _edges(file.log.path, read_to) == edges


def _edges(path: Path, read_to: int) -> bytes:
    """A hash of how the first `read_to` bytes begin and end; none where the file is gone."""
    size = min(EDGE_BYTES, read_to)
    try:
        with path.open("rb") as stream:
            begin = stream.read(size)
            stream.seek(read_to - size)
            return hashlib.sha256(begin + stream.read(size)).digest()
    except FileNotFoundError:
        return b""


def _forget_step(tables: Tables, number: int) -> None:
    """All files of its step: rows of one may have taken the place of another's, which is read again then."""
    with tables.transaction() as db:
        files = db.execute(f"SELECT id FROM files WHERE (run, split, step) = {_OF_ITS_STEP}", (number,)).fetchall()
        db.executemany("DELETE FROM trajectories WHERE file = ?", files)
        db.executemany("DELETE FROM files WHERE id = ?", files)


def _read(tables: Tables, file: _File) -> Iterator[int]:
    number, read_to, changed = _known(tables, file)
    if file.status.st_size <= read_to and file.status.st_mtime_ns == changed:
        return
    tables.db.execute("UPDATE files SET changed = ? WHERE id = ?", (file.status.st_mtime_ns, number))
    entries = (_entry(file.log, line) for line in whole_lines(file.log.path, read_to))  # one decoded line at a time
    while batch := list(islice(entries, BATCH)):
        yield _insert(tables, file, number, batch)


def _known(tables: Tables, file: _File) -> tuple[int, int, int]:
    """Number of the file, how far it was read, and when it had changed by then."""
    path, status = str(file.log.path), file.status
    known = tables.db.execute("SELECT id, read_to, changed FROM files WHERE path = ?", (path,)).fetchone()
    if known is not None:
        return int(known[0]), int(known[1]), int(known[2])
    added = tables.db.execute(
        "INSERT INTO files (run, path, split, step, inode, changed, read_to, edges, broken) "
        "VALUES (?, ?, ?, ?, ?, ?, 0, ?, 0)",
        (file.run, path, file.log.split, file.log.step, status.st_ino, status.st_mtime_ns, _edges(file.log.path, 0)),
    )
    return int(added.lastrowid or 0), 0, status.st_mtime_ns


def _entry(log: LogFile, line: Line) -> _Entry:
    summary = None if line.record is None else Summary.of(line.record, step=log.step, split=log.split)
    return line.offset, line.length, summary


def _insert(tables: Tables, file: _File, number: int, batch: Sequence[_Entry]) -> int:
    summaries = [summary for _, _, summary in batch if summary is not None]
    rows = [(file.run, number, *place, *summary.values()) for *place, summary in batch if summary is not None]
    # Rows and the position read to are stored in one transaction: a crash repeats no line and skips none.
    offset, length, _ = batch[-1]
    read_to = offset + length
    edges = _edges(file.log.path, read_to)
    with tables.transaction() as db:
        _delete_earlier_tries(db, file.run, number, summaries)
        db.executemany(_INSERT, rows)
        db.execute(
            "UPDATE files SET read_to = ?, edges = ?, broken = broken + ? WHERE id = ?",
            (read_to, edges, len(batch) - len(rows), number),
        )
    return len(rows)


def _delete_earlier_tries(db: sqlite3.Connection, run: int, number: int, summaries: Sequence[Summary]) -> None:
    # Most steps have files of one try alone; the deletes below are worth their time only where there are several.
    others = db.execute(
        f"SELECT 1 FROM files WHERE id != ? AND (run, split, step) = {_OF_ITS_STEP} LIMIT 1", (number, number)
    )
    if others.fetchone() is None:
        return
    db.executemany(
        "DELETE FROM trajectories WHERE record = ? AND run = ? AND step = ? AND sample = ? AND split = ? "
        "AND variant = ? AND file != ?",
        [
            (one.record, run, one.step, one.sample, one.split, one.variant, number)
            for one in summaries
            if 0 < len(one.record) < MAX_NAME  # a name that was cut may be that of several records
        ],
    )
