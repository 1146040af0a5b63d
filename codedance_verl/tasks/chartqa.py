"""ChartQA, test split: 1,250 questions by people and 1,250 made by a machine, on charts.

The rule is the relaxed accuracy of the paper as all evaluations compute it, quirks included: a thousands comma or a
currency sign makes text of a number, years have the tolerance of numbers, and 0 is compared as text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from codedance_verl.data.fields import BadRow
from codedance_verl.grading.matchers import MODEL
from codedance_verl.grading.rules.alternatives import alternatives_of, encode_alternatives
from codedance_verl.tasks.figures import Figure, Mark, mean, mean_of_means, means_by
from codedance_verl.tasks.item import Item, Score
from codedance_verl.tasks.rows import Row, table
from codedance_verl.tasks.task import Task

RULE = "relaxed_accuracy"

# Share of a number by which an answer may differ from it, limit included.
TOLERANCE = 0.05

HUMAN, AUGMENTED = "human", "augmented"
_TYPES = {"human": HUMAN, "human_test": HUMAN, "0": HUMAN, "augmented": AUGMENTED, "augmented_test": AUGMENTED}
_TYPES |= {"1": AUGMENTED, "machine": AUGMENTED}


def relaxed_equal(reply: str, truth: str) -> bool:
    """True if both are numbers and differ by 5 % of the true one at most; without two numbers if the texts are equal.

    A number is what `float` takes, with a percent sign behind it a hundredth of that. A true 0 is text.
    """
    given, right = _number(reply), _number(truth)
    # a share of 0 is no tolerance: such a truth is compared as text
    if given is not None and right:
        return abs(given - right) / abs(right) <= TOLERANCE
    return reply.lower() == truth.lower()


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def score(item: Item, reply: str) -> Score:
    """Relaxed accuracy of a reply without the blanks around it, against any of the labels."""
    if item.truth is None:
        return Score(None, RULE, reason="the item has no truth")
    given = reply.strip()
    return Score.of(any(relaxed_equal(given, truth) for truth in alternatives_of(item.truth)), RULE, given or None)


def figures(marks: Sequence[Mark]) -> tuple[Figure, ...]:
    """Mean of both halves, each half, and the mean of all rows, which is the same while the halves are equal."""
    return (
        mean_of_means("accuracy", "mean of human and augmented", marks, "type"),
        *(part for part in means_by(marks, "type") if part.name),  # rows that are no item have no type
        mean("overall", "mean over all items", marks),
    )


def _item(row: Row, question: str, truth: str, kind: str) -> Item:
    if kind not in _TYPES:
        raise BadRow(f"its type is {kind[:40]!r}; known are {', '.join(sorted(_TYPES))}")
    return Item(
        id=row.optional("id"),
        question=row.text(question).strip(),
        images=(row.image(),),
        truth=truth,
        cluster=row.optional("imgname"),
        style=MODEL,
        strata={"type": _TYPES[kind]},
    )


def _labels(row: Row) -> str:
    """Labels of a row, one or a list of them."""
    labels = row.values.get("label")
    try:
        return encode_alternatives([str(label) for label in labels]) if isinstance(labels, list) else row.text("label")
    except ValueError as fault:
        raise BadRow(f"label: {fault}") from None


def _lmms_lab(row: Row) -> Item:
    return _item(row, "question", row.text("answer"), row.text("type"))


def _masry(row: Row) -> Item:
    return _item(row, "query", _labels(row), row.text("type"))


def _m4(row: Row) -> Item:
    return _item(row, "query", _labels(row), row.text("human_or_machine"))


def _release(row: Row) -> Item:
    """Row of a file of the authors' folder, named after its half, beside the folder `png`."""
    kind = HUMAN if "human" in row.path.stem else AUGMENTED
    item = _item(row, "query", _labels(row), kind)
    return replace(item, images=(row.image("imgname", "png"),))


CHARTQA = Task(
    name="chartqa",
    title="ChartQA test",
    source="lmms-lab/ChartQA",
    revision="main",
    expected=2_500,
    layouts=(
        table("parquet of lmms-lab/ChartQA", "**/test*.parquet", ("type", "question", "answer", "image"), _lmms_lab),
        table("parquet of ahmed-masry/ChartQA", "**/test*.parquet", ("type", "query", "label", "image"), _masry),
        table("parquet of HuggingFaceM4/ChartQA", "**/test*.parquet", ("human_or_machine", "query", "label"), _m4),
        table(
            "test_human.json, test_augmented.json and png/", "**/test_*.json", ("imgname", "query", "label"), _release
        ),
        table(
            "JSON lines with images beside them", "**/test*.jsonl", ("type", "question", "answer", "image"), _lmms_lab
        ),
    ),
    score=score,
    rule="relaxed accuracy: numbers within 5 %, other answers the same text in any case",
    figures=figures,
    hub_files=("**/test*.parquet",),
)

TASKS = (CHARTQA,)
