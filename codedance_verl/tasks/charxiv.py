"""CharXiv, reasoning questions of the validation split: 1,000 charts of arXiv papers, graded by a judge.

Each of four types of answers has an instruction behind the question and a rubric for the judge. The authors' texts are
read from their repository where the folder is a checkout of it; other layouts get instructions and rubrics that say the
same in this project's words, under a rule of another name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from codedance_verl.data.fields import BadRow
from codedance_verl.grading.matchers import MODEL
from codedance_verl.tasks.charxiv_judge import AUTHORS, OWN, Prompts, authors_prompts, request
from codedance_verl.tasks.figures import Figure, Mark, mean, means_by
from codedance_verl.tasks.item import ImageReference, Item, JudgeRequest, Score
from codedance_verl.tasks.references import ImageFile
from codedance_verl.tasks.rows import Row, columns_of, converted, rows, table
from codedance_verl.tasks.task import Layout, Task

ANSWER_TYPES = {1: "text_in_chart", 2: "text_in_general", 3: "number_in_chart", 4: "number_in_general"}
SOURCES = {1: "gpt_sourced", 2: "gpt_inspired", 3: "human"}

_FIGURE_ID = re.compile(r"(\d+)\.\w+$")


def score(item: Item, reply: str) -> Score | JudgeRequest:
    """Request to the judge, for every reply; an empty one too, as in the authors' script."""
    if item.truth is None:
        return Score(None, OWN.rule, reason="the item has no truth")
    return request(item, reply)


def figures(marks: Sequence[Mark]) -> tuple[Figure, ...]:
    """Mean of all items, and of each type of answer and source of question."""
    parts = (part for stratum in ("answer_type", "source") for part in means_by(marks, stratum) if part.name)
    return (mean("accuracy", "mean over all items", marks), *parts)


# ---- layouts ----


def _item(row: Row, figure: str, columns: tuple[str, str, str, str], image: ImageReference, prompts: Prompts) -> Item:
    """Item of a row whose `columns` hold question, answer, type of answer and source of the question."""
    question, truth = row.text(columns[0]), row.text(columns[1])  # as they are: the prompts hold them
    kind, source = _number(row, columns[2], ANSWER_TYPES), _number(row, columns[3], SOURCES)
    return Item(
        id=figure,
        question=prompts.instructed(question, kind, truth),
        images=(image,),
        truth=truth,
        style=MODEL,
        strata={"answer_type": ANSWER_TYPES[kind], "source": SOURCES[source]},
        facts={"question": question, "answer_type": kind, "prompts": prompts.path},
    )


def _number(row: Row, column: str, known: dict[int, str]) -> int:
    text = row.text(column).removesuffix(".0")  # tables may hold whole numbers as floats
    if not (text.isascii() and text.isdigit()) or int(text) not in known:
        raise BadRow(f"{column} is {text[:20]!r}, which is none of {', '.join(map(str, known))}")
    return int(text)


def _parquet(row: Row) -> Item:
    named = _FIGURE_ID.search(row.optional("figure_path"))
    columns = ("reasoning_q", "reasoning_a", "reasoning_a_type", "reasoning_q_source")
    return _item(row, named.group(1) if named else "", columns, row.image(), OWN)


def _find_release(folder: Path) -> tuple[Path, ...]:
    found = sorted(folder.glob("**/reasoning_val.json"))
    # a second copy in the folder would ask each question twice
    return tuple(path for path in found[:1] if {"figure_id", "query", "answer", "inst_category"} <= columns_of(path))


def _release(files: tuple[Path, ...]) -> Iterator[Item]:
    """Items of `reasoning_val.json` in the repository's folder `data`, or beside the folder `images`."""
    for path in files:
        root = path.parent.parent if path.parent.name == "data" else path.parent
        images, constants = root / "images", root / "src" / "constants.py"
        prompts = authors_prompts(constants) if constants.is_file() else OWN

        def convert(row: Row, images: Path = images, prompts: Prompts = prompts) -> Item:
            figure = row.text("figure_id")
            columns = ("query", "answer", "inst_category", "qa_source")
            return _item(row, figure, columns, ImageFile(images / f"{figure}.jpg", row.where), prompts)

        yield from (converted(row, convert) for row in rows(path))


CHARXIV = Task(
    name="charxiv",
    title="CharXiv reasoning, val",
    source="princeton-nlp/CharXiv",
    revision="main",
    expected=1_000,
    layouts=(
        Layout("repository princeton-nlp/CharXiv with its images", _find_release, _release),
        table(
            "parquet of princeton-nlp/CharXiv",
            "**/val*.parquet",
            ("image", "reasoning_q", "reasoning_a", "reasoning_a_type", "reasoning_q_source"),
            _parquet,
        ),
    ),
    score=score,
    rule=f"judge with a rubric for each type of answer: {AUTHORS} with the authors' texts, {OWN.rule} with own ones",
    figures=figures,
    hub_files=("**/val*.parquet",),
)

TASKS = (CHARXIV,)
