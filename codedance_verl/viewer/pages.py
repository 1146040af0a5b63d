"""Pages as HTML: what each asks of the index, and Jinja2 with everything escaped."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment

from codedance_verl.trajectories.index import Index, Row, StepFigures
from codedance_verl.trajectories.query import Query
from codedance_verl.trajectories.schema import ImageRef, TrajectoryRecord, TurnRecord
from codedance_verl.viewer.charts import Spark, spark
from codedance_verl.viewer.text import templates
from codedance_verl.viewer.trajectory_view import Bounds, TrajectoryView, trajectory_view, transcript

DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
PAGE_ROWS = 100
GROUP_COLUMNS = 16
DIFF_CHARS, DIFF_LINES = 100_000, 2_000
ALL_IMAGES = 500
OTHERS = 60

_FOLDER = Path(__file__).parent
STATIC = _FOLDER / "static"

_GROUP_BOUNDS = Bounds(chars=1_200, code=3_000, images=4, turns=12)


class Missing(Exception):
    """There is no such run, trajectory or part; the message says which."""


@dataclass(frozen=True)
class GroupView:
    """A trajectory on a page: its row and its view, and how the page refers to its images and whole texts."""

    row: Row
    view: TrajectoryView

    def image(self, image: ImageRef) -> str:
        """Address of an image."""
        return f"/runs/{self.row.run}/images/{image.sha256}.png"

    def raw(self, part: str) -> str | None:
        """Address of a whole text; None where a page has none."""
        return f"/t/{self.row.id}/raw/{part}"


@cache
def _templates() -> Environment:
    return templates(_FOLDER / "templates", figure=figure, percent=percent)


def figure(value: float | None, digits: int = 2) -> str:
    """A number with its sign where it is below zero, or a dash."""
    if value is None:
        return DASH
    shown = f"{value:.{digits}f}"
    # What rounds to zero has no sign; elsewhere the hyphen becomes a minus sign.
    return (shown if float(shown) else shown.lstrip("-")).replace("-", MINUS)


def percent(value: float | None) -> str:
    """A share as whole percents, or a dash."""
    return DASH if value is None else f"{100 * value:.0f} %"


def render(template: str, /, **values: Any) -> str:
    """A template of ours as text."""
    return _templates().get_template(template).render(**values)


def problem(status: int, message: str) -> str:
    """The page of an error."""
    return render("problem.html", status=status, message=message)


def runs_page(index: Index, *, indexing: bool) -> str:
    """All runs, with curves of each."""
    runs = [(run, curves(index.steps(run.id))) for run in index.runs()]
    return render("runs.html", runs=runs, indexing=indexing, newest=index.newest_id())


def run_page(index: Index, run: int, *, indexing: bool) -> str:
    """The steps of a run."""
    steps = index.steps(run)
    return render(
        "run.html",
        run=_run(index, run),
        curves=curves(steps),
        steps=steps[::-1],
        indexing=indexing,
        newest=index.newest_id(),
    )


def curves(steps: Sequence[StepFigures]) -> list[Spark]:
    """Accuracy, score, tool rate and turns of training over the steps; of validation where that is all there is."""
    train = [step for step in steps if step.split == "train"] or list(steps)
    drawn = [
        spark(name.replace("_", " "), [(step.step, getattr(step, name)) for step in train])
        for name in ("accuracy", "score", "tool_rate", "turns")
    ]
    return [curve for curve in drawn if curve is not None]


def list_page(index: Index, run: int, query: Query, page: int, *, indexing: bool) -> str:
    """A page of the trajectories that a query finds."""
    newest = index.newest_id()  # before the rows: one added in between is fetched twice rather than never
    found = index.find(run, query, limit=PAGE_ROWS, offset=(page - 1) * PAGE_ROWS)
    return render(
        "list.html",
        run=_run(index, run),
        query=query,
        found=found,
        page=page,
        pages=max(1, -(-found.total // PAGE_ROWS)),
        choices={name: index.values_of(run, name) for name in ("kind", "variant", "control", "finish")},
        statuses=sorted({name for value in index.values_of(run, "statuses") for name in value.strip(",").split(",")}),
        active=[field.name for field in fields(query) if getattr(query, field.name) not in ("", None)],
        indexing=indexing,
        newest=newest,
    )


def new_rows(index: Index, run: int, query: Query, after: int | None) -> dict[str, Any]:
    """Rows added to a list since `after`; none with None, while old steps are still being read."""
    newest = index.newest_id()
    rows = [] if after is None else index.newer(run, query, after, PAGE_ROWS)
    total = index.find(run, query, limit=0).total
    html = render("rows.html", rows=rows, query=query, fresh=True)
    return {"html": html, "count": len(rows), "newest": newest, "total": total}


def trajectory_page(index: Index, number: int, query: Query, *, all_images: bool, first_turn: int) -> str:
    """One trajectory, with its neighbours in the list it was opened from."""
    bounds = Bounds(images=ALL_IMAGES if all_images else Bounds.images, first_turn=first_turn)
    row = _row(index, number)
    entry = GroupView(row, trajectory_view(_record(index, number), bounds))
    before, behind = index.neighbours(row, query)
    return render(
        "trajectory.html",
        run=_run(index, row.run),
        entry=entry,
        query=query,
        before=before,
        behind=behind,
        group=index.group(row, GROUP_COLUMNS),
        others=[(other, _run(index, other.run)) for other in index.same_prompt(row, OTHERS)],
        all_images=all_images,
        first_turn=first_turn,
    )


def group_page(index: Index, number: int) -> str:
    """The rollouts of a group side by side."""
    row = _row(index, number)
    group = index.group(row, GROUP_COLUMNS)
    entries = [
        GroupView(member, trajectory_view(record, _GROUP_BOUNDS))
        for member in group.rows
        if (record := index.record(member.id))
    ]
    if not entries:
        raise Missing(f"the lines of the group of trajectory {number} are gone")
    return render("group.html", run=_run(index, row.run), entries=entries, total=group.total, own=number)


def diff_page(index: Index, number: int, other: int) -> str:
    """Two trajectories beside each other, and the lines in which they differ."""
    rows = [_row(index, one) for one in (number, other)]
    records = [_record(index, one) for one in (number, other)]
    sides = [GroupView(row, trajectory_view(record, _GROUP_BOUNDS)) for row, record in zip(rows, records, strict=True)]
    texts = [transcript(record, DIFF_CHARS) for record in records]
    left, right = (whole.splitlines() for whole, _ in texts)
    return render(
        "diff.html",
        runs=[_run(index, row.run) for row in rows],
        run=_run(index, rows[0].run),
        sides=sides,
        lines=differing_lines(left[:DIFF_LINES], right[:DIFF_LINES]),
        cut=any(more for _, more in texts) or max(len(left), len(right)) > DIFF_LINES,
        bounds=(DIFF_CHARS, DIFF_LINES),
        same_prompt=rows[0].summary.record == rows[1].summary.record,
    )


def differing_lines(left: Sequence[str], right: Sequence[str]) -> list[tuple[str, str]]:
    """Lines with `+`, `-`, `@` or a blank, as a unified diff has them; empty where both are the same."""
    lines = list(difflib.unified_diff(left, right, lineterm="", n=3))
    return [(line[0], line[1:]) for line in lines[2:]]  # behind the names of two files


def raw_part(index: Index, number: int, part: str) -> str:
    """A whole text of a trajectory: `question`, or `<turn from 1>.<text, code, stdout, observation or traceback>`.

    Raises:
        Missing: there is no such text.
    """
    record = _record(index, number)
    if part in ("question", "ground_truth", "answer"):
        return getattr(record, part) or ""
    which, _, name = part.partition(".")
    if which.isascii() and which.isdigit() and 0 < int(which) <= len(record.turns):
        texts = _texts(record.turns[int(which) - 1])
        if name in texts:
            return texts[name] or ""
    raise Missing(f"trajectory {number} has no {part}")


def _texts(turn: TurnRecord) -> Mapping[str, str | None]:
    execution = turn.execution
    error = execution.error if execution is not None else None
    return {
        "text": turn.text,
        "code": turn.code,
        "observation": turn.observation,
        "stdout": execution.stdout if execution is not None else None,
        "traceback": error.traceback if error is not None else None,
    }


def _run(index: Index, run: int) -> Mapping[str, Any]:
    for known in index.runs_named():
        if known[0] == run:
            return {"id": run, "name": known[1]}
    raise Missing(f"there is no run {run}")


def _row(index: Index, number: int) -> Row:
    row = index.row(number)
    if row is None:
        raise Missing(f"there is no trajectory {number}; the index may have been rebuilt")
    return row


def _record(index: Index, number: int) -> TrajectoryRecord:
    record = index.record(number)
    if record is None:
        raise Missing(f"the line of trajectory {number} is gone; the run may have deleted old steps")
    return record
