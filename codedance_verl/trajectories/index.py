"""Index over trajectories in SQLite: a row each, and the place of its line. Built as files grow, the newest first.

The index is a cache: it can be deleted at any time, and is rebuilt where it does not fit the files.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codedance_verl.errors import UserError
from codedance_verl.trajectories.lines import read_line
from codedance_verl.trajectories.query import Query
from codedance_verl.trajectories.reading import read_new
from codedance_verl.trajectories.runs import find_runs
from codedance_verl.trajectories.schema import TrajectoryRecord
from codedance_verl.trajectories.summary import COLUMNS, QUOTED_COLUMNS, Summary
from codedance_verl.trajectories.tables import Tables

_NEWEST_FIRST = 'ORDER BY step DESC, split, "group", sample, id'


@dataclass(frozen=True)
class Row:
    """A trajectory in a list."""

    id: int
    run: int
    summary: Summary


@dataclass(frozen=True)
class Found:
    """A page of rows and how many there are in all."""

    rows: tuple[Row, ...]
    total: int


@dataclass(frozen=True)
class StepFigures:
    """Means over the trajectories of a step; None where no row has a value."""

    step: int
    split: str
    count: int
    accuracy: float | None
    score: float | None
    tool_rate: float
    turns: float
    failed_calls: float | None
    seconds: float | None


@dataclass(frozen=True)
class RunFigures:
    """A run in the list of runs."""

    id: int
    name: str
    count: int
    last_step: int | None
    broken: int


def cache_folder() -> Path:
    """Default folder of indices: `$XDG_CACHE_HOME/codedance`, else `~/.cache/codedance`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "codedance"


class Index:
    """The index of the runs at or below `root`. Methods may be called from several threads."""

    def __init__(self, root: Path, cache: Path) -> None:
        """Open or make it.

        Raises:
            UserError: no run is there, or the cache cannot be written.
        """
        find_runs(root)
        self._root = root.resolve()
        # One index for each folder, whatever characters its path has.
        name = hashlib.sha256(str(self._root).encode("utf-8", "surrogateescape")).hexdigest()[:24]
        self._choices: dict[tuple[int, str], tuple[int, list[str]]] = {}  # with the newest row when they were looked up
        try:
            self._tables = Tables(cache / f"{name}.sqlite")
        except (OSError, sqlite3.OperationalError) as error:
            raise UserError(
                f"{cache}: no index can be kept there ({error}); choose another folder with --cache"
            ) from None

    def close(self) -> None:
        """Close the connection of the calling thread."""
        self._tables.close()

    @property
    def _db(self) -> sqlite3.Connection:
        return self._tables.db

    def update(self) -> Iterator[int]:
        """Read what was written since, the newest files first; yields how many rows were added after each batch.

        Yields 0 now and then while another process updates the same index.

        Raises:
            UserError: no run is there any more, or another process is at it for too long.
        """
        return self._tables.alone(read_new(self._tables, self._root))

    def update_fully(self) -> int:
        """All of it at once; how many rows were added."""
        return sum(self.update())

    def runs(self) -> list[RunFigures]:
        """Every run, by name."""
        found = self._db.execute(
            "SELECT id, name, (SELECT count(*) FROM trajectories WHERE run = runs.id), "
            "(SELECT max(step) FROM trajectories WHERE run = runs.id), "
            "(SELECT coalesce(sum(broken), 0) FROM files WHERE run = runs.id) FROM runs ORDER BY name"
        )
        return [RunFigures(*row) for row in found]

    def runs_named(self) -> list[tuple[int, str]]:
        """Number and name of every run."""
        return [(int(number), str(name)) for number, name in self._db.execute("SELECT id, name FROM runs")]

    def run_folder(self, run: int) -> Path | None:
        """The folder of a run's trajectories."""
        found = self._db.execute("SELECT folder FROM runs WHERE id = ?", (run,)).fetchone()
        return None if found is None else Path(found[0])

    def steps(self, run: int) -> list[StepFigures]:
        """Figures of every step and split of a run, in the order of steps."""
        found = self._db.execute(
            "SELECT step, split, count(*), avg(correct), avg(score), avg(calls > 0), avg(turns), "
            "sum(failed) * 1.0 / nullif(sum(calls), 0), avg(seconds) "
            "FROM trajectories WHERE run = ? GROUP BY step, split ORDER BY step, split",
            (run,),
        )
        return [StepFigures(*row) for row in found]

    def find(self, run: int, query: Query, *, limit: int, offset: int = 0) -> Found:
        """A page of what a query finds, the newest step first."""
        where, values = query.where()
        where, values = f"run = ? AND {where}", (run, *values)
        (total,) = self._db.execute(f"SELECT count(*) FROM trajectories WHERE {where}", values).fetchone()
        # Past the end SQLite would walk over all rows to return none.
        if offset >= total or not limit:
            return Found((), int(total))
        rows = self._rows(f"WHERE {where} {_NEWEST_FIRST} LIMIT ? OFFSET ?", (*values, limit, offset))
        return Found(tuple(rows), int(total))

    def newer(self, run: int, query: Query, after: int, limit: int) -> list[Row]:
        """Rows that a query finds among those added after the one numbered `after`."""
        where, values = query.where()
        return self._rows(
            f"WHERE run = ? AND id > ? AND {where} ORDER BY id DESC LIMIT ?", (run, after, *values, limit)
        )

    def newest_id(self) -> int:
        """Number of the row added last, 0 where there is none."""
        return int(self._db.execute("SELECT coalesce(max(id), 0) FROM trajectories").fetchone()[0])

    def neighbours(self, row: Row, query: Query) -> tuple[int | None, int | None]:
        """The rows before and behind one in the order of a list."""
        where, values = query.where()
        own = row.summary
        # The step is negated so that one comparison of tuples follows the order of the list, newest first.
        place = (-own.step, own.split, own.group, own.sample, row.id)
        found: list[int | None] = []
        for sign, order in (
            ("<", 'step, split DESC, "group" DESC, sample DESC, id DESC'),
            (">", 'step DESC, split, "group", sample, id'),
        ):
            next_one = self._db.execute(
                f"SELECT id FROM trajectories WHERE run = ? AND {where} AND "
                f'(-step, split, "group", sample, id) {sign} (?, ?, ?, ?, ?) ORDER BY {order} LIMIT 1',
                (row.run, *values, *place),
            ).fetchone()
            found.append(None if next_one is None else int(next_one[0]))
        return found[0], found[1]

    def group(self, row: Row, limit: int) -> Found:
        """The first rollouts of a row's group by sample, its own among them, and how many there are in all."""
        own = row.summary
        where = 'run = ? AND step = ? AND split = ? AND "group" = ?'
        values = (row.run, own.step, own.split, own.group)
        (total,) = self._db.execute(f"SELECT count(*) FROM trajectories WHERE {where}", values).fetchone()
        # The own row comes first here, so that a limit never cuts it off; the page sorts by sample again.
        rows = self._rows(f"WHERE {where} ORDER BY id != ?, sample, id LIMIT ?", (*values, row.id, limit))
        return Found(tuple(sorted(rows, key=lambda member: (member.summary.sample, member.id))), int(total))

    def same_prompt(self, row: Row, limit: int) -> list[Row]:
        """One rollout of the same record in each other step and variant, of this run and of others."""
        return self._rows(
            "WHERE id IN (SELECT min(id) FROM trajectories WHERE record = ? AND record != '' "
            "AND NOT (run = ? AND step = ? AND split = ? AND variant = ?) GROUP BY run, step, split, variant) "
            "ORDER BY run, step, id LIMIT ?",
            (row.summary.record, row.run, row.summary.step, row.summary.split, row.summary.variant, limit),
        )

    def row(self, number: int) -> Row | None:
        """The row of that number."""
        found = self._rows("WHERE id = ?", (number,))
        return found[0] if found else None

    def values_of(self, run: int, column: str) -> list[str]:
        """Distinct values of a column of a run, for the choices of a filter."""
        assert column in COLUMNS  # it becomes part of the SQL text
        # DISTINCT reads the whole run: its result holds until a row is added.
        newest = self.newest_id()
        seen_at, seen = self._choices.get((run, column), (-1, []))
        if seen_at == newest:
            return seen
        found = self._db.execute(
            f"SELECT DISTINCT {column} FROM trajectories WHERE run = ? ORDER BY 1 LIMIT 200", (run,)
        )
        values = [str(value) for (value,) in found if value not in (None, "")]
        self._choices[run, column] = (newest, values)
        return values

    def record(self, number: int) -> TrajectoryRecord | None:
        """The whole line of a row; None where it is gone."""
        found = self.place(number)
        return None if found is None else read_line(*found)

    def place(self, number: int) -> tuple[Path, int, int] | None:
        """File, offset and bytes of a row's line."""
        found = self._db.execute(
            "SELECT path, at, length FROM trajectories JOIN files ON files.id = file WHERE trajectories.id = ?",
            (number,),
        ).fetchone()
        return None if found is None else (Path(found[0]), found[1], found[2])

    def _rows(self, rest: str, values: tuple[Any, ...]) -> list[Row]:
        found = self._db.execute(f"SELECT id, run, {QUOTED_COLUMNS} FROM trajectories {rest}", values)
        return [Row(number, run, Summary(*columns)) for number, run, *columns in found]
