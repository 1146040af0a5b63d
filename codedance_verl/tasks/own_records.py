"""Questions of one's own as a benchmark: a file in the form of training data (docs/data.md).

Of a question that stands there under several conditions (`data/conditions.py`) one row is asked: that of the variant
`greedy` where the file has it, else `sampled`; rows under a control and blank images are left out, as an evaluation has
switches of its own for them.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codedance_verl.data.conditions import GREEDY, PLAIN_VARIANTS, SAMPLED, Condition
from codedance_verl.data.rows import Kind
from codedance_verl.data.table import RowTable, StoredImage, StoredRow, open_table
from codedance_verl.grading.context import Context
from codedance_verl.grading.matchers import ASKS_JUDGE, STYLES, grade, grade_by_rules
from codedance_verl.tasks.figures import Figure, Mark, mean, means_by
from codedance_verl.tasks.item import Item, Score, UnreadableImage
from codedance_verl.tasks.task import Layout, Task
from codedance_verl.types import IMAGE_PLACEHOLDER, Verdict, label_of, stated_record_id

SUFFIXES = (".parquet",)
"""Names of files that are questions of one's own, and no name of a benchmark."""

RULE = "rules of this project's grader, no judge"
STRATA = ("data_source", "kind", "difficulty")


def is_own(name: str) -> bool:
    """True for the name of a file, false for that of a benchmark."""
    return Path(name).suffix in SUFFIXES


def own_task(path: Path, tables: Path) -> Task:
    """Benchmark of a file, under the name of the file; its revision is the digest of the content.

    Args:
        path: the file.
        tables: folder for the table that its rows are read from (`data.table.open_table`).

    Raises:
        UserError: the file or a row of it cannot be read, with the row and what to do.
    """
    table = open_table([path], tables, Kind.QUESTIONS)
    asked = list(_asked(table))
    return Task(
        name=re.sub(r"[^\w.-]+", "_", path.stem),
        title=path.name,
        source=str(path),
        revision=_digest(path),
        expected=len(asked),
        layouts=(Layout("records of training", lambda _: (path,), lambda _: map(_item, asked)),),
        score=_score,
        rule=RULE,
        figures=own_figures,
    )


@dataclass(frozen=True)
class _Asked:
    """Row of the table that is asked, with its number."""

    number: int
    row: StoredRow


@dataclass(frozen=True)
class TableImage:
    """Image of a row of a table, or a file that the row names."""

    source: StoredImage | Path
    where: str

    def fault(self) -> str:
        return ""

    def read(self) -> bytes:
        try:
            return self.source.read_bytes()
        except OSError as error:
            raise UnreadableImage(f"{self.where}: the image cannot be read ({error})") from None


def _asked(table: RowTable) -> Iterator[_Asked]:
    rows = [_Asked(number, table[number]) for number in range(len(table))]
    conditions = [Condition.of(one.row.extra_info) for one in rows]
    variants = {condition.variant for condition in conditions}
    wanted = {"", next((name for name in (GREEDY, SAMPLED) if name in variants), "")}
    # a file with other variants alone would else have no question
    if not variants & {*PLAIN_VARIANTS, ""}:
        wanted = variants
    for one, condition in zip(rows, conditions, strict=True):
        if condition.control is None and condition.variant in wanted:
            yield one


def _item(asked: _Asked) -> Item:
    row, extra = asked.row, asked.row.extra_info
    where = f"row {asked.number}"
    texts = [message for message in row.messages if message.role == "user"]
    labels = {name: label_of(extra.get(name)) for name in STRATA[1:]} | {"data_source": row.data_source}
    return Item(
        id=stated_record_id(row.data_source, extra) or str(asked.number),
        question=texts[-1].content.replace(IMAGE_PLACEHOLDER, "").strip() if texts else row.question,
        images=tuple(TableImage(source, where) for source in row.sources),
        truth=row.ground_truth,
        style=row.style,
        graded_question=row.question,
        system="\n".join(message.content for message in row.messages if message.role == "system"),
        strata={name: value for name, value in sorted(labels.items()) if value},
        facts={"boxes": _boxes(extra.get("regions"))},
    )


def _boxes(regions: Any) -> tuple[tuple[int, int, int, int], ...]:
    """Left, top, right and bottom in whole pixels of the regions of a record; those without an area are left out."""
    found = []
    for region in regions if isinstance(regions, list) else ():
        edges: list[Any] = [region.get(name) for name in ("x1", "y1", "x2", "y2")] if isinstance(region, dict) else []
        if not edges or not all(isinstance(edge, int | float) and math.isfinite(edge) for edge in edges):
            continue
        left, top = (max(0, math.floor(edge)) for edge in edges[:2])
        right, bottom = (math.ceil(edge) for edge in edges[2:])
        if left < right and top < bottom:
            found.append((left, top, right, bottom))
    return tuple(found)


def _score(item: Item, reply: str) -> Score:
    if item.style not in STYLES:
        return Score(None, "style", reason=f"unknown style {item.style!r}")
    compare = grade_by_rules if item.style in ASKS_JUDGE else grade
    found = compare(reply or None, item.truth or "", item.style, Context(question=item.graded_question))
    if found is None or found.verdict is Verdict.UNGRADED:
        return Score(None, "judge", reason="no rule decides; the figure called ours has the judge's verdict")
    return Score.of(found.correct, found.rule, reply)


def own_figures(marks: Sequence[Mark]) -> tuple[Figure, ...]:
    """Accuracy over all questions, and over those of each data source, kind and difficulty where there are several."""
    parts = [means_by(marks, name) for name in STRATA]
    return (
        mean("accuracy", "mean over all questions", marks),
        *(figure for part in parts if len(part) > 1 for figure in part),
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]
