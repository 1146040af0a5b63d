"""CountBench (CountBenchQA): photographs with 2 to 10 things to count.

The caption of the published rows holds the number as a word; it is no part of the question here.
"""

from __future__ import annotations

from codedance_verl.data.fields import BadRow
from codedance_verl.grading.rules import count
from codedance_verl.tasks.counting import DEFINITION, score_count
from codedance_verl.tasks.figures import accuracy
from codedance_verl.tasks.item import Item
from codedance_verl.tasks.rows import Row, table
from codedance_verl.tasks.task import Task


def whole_number(row: Row, column: str) -> str:
    """Count of a column in digits. Raises BadRow where it is none."""
    text = row.text(column).strip().removesuffix(".0")
    if not (text.isascii() and text.isdigit()):  # `isdigit` alone admits superscripts, which `int` refuses
        raise BadRow(f"{column} is {text[:40]!r}, which is no count")
    return str(int(text))


def _published(row: Row) -> Item:
    question = row.text("question").strip()
    return Item(row.optional("id"), question, (row.image(),), whole_number(row, "number"), style=count.RULE)


def _tsv(row: Row) -> Item:
    question = row.text("question").strip()
    return Item(row.optional("index"), question, (row.image(),), whole_number(row, "answer"), style=count.RULE)


COUNTBENCH = Task(
    name="countbench",
    title="CountBench",
    source="vikhyatk/CountBenchQA",
    revision="76d6003",
    expected=491,
    layouts=(
        table("parquet of vikhyatk/CountBenchQA", "**/*.parquet", ("image", "question", "number"), _published),
        table("JSON lines with images beside them", "**/*.jsonl", ("image", "question", "number"), _published),
        table("CountBenchQA.tsv of VLMEvalKit", "**/*CountBench*.tsv", ("image", "question", "answer"), _tsv),
    ),
    score=score_count,
    rule=DEFINITION,
    figures=accuracy,
    hub_files=("**/*.parquet",),
)

TASKS = (COUNTBENCH,)
