"""MathVista, testmini: 1,000 questions of 28 sources, with options, whole numbers, decimals or lists for answers."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from codedance_verl.data.fields import BadRow
from codedance_verl.errors import UserError
from codedance_verl.grading.matchers import RULE as RULES
from codedance_verl.grading.rules import choice
from codedance_verl.tasks.authors_texts import authors_file
from codedance_verl.tasks.figures import Figure, Mark, mean
from codedance_verl.tasks.item import ImageReference, Item
from codedance_verl.tasks.letters import lettered
from codedance_verl.tasks.math_rows import (
    completed,
    files_that,
    image_near,
    items_that,
    list_in,
    mapping_in,
    parts,
)
from codedance_verl.tasks.mathvista_rule import (
    ANSWER_TYPES,
    AUTHORS_NAMES,
    CHOICE,
    CORRECTED,
    RULE,
    corrected_score,
    score,
)
from codedance_verl.tasks.rows import Row, table
from codedance_verl.tasks.task import Layout, Task

_TEST = "test"

_STRATA = ("question_type", "answer_type", "language", "source", "category", "task", "context", "grade")


def figures(marks: Sequence[Mark]) -> tuple[Figure, ...]:
    """Mean of all items, and of each part that the authors report; a question may need several skills."""
    skills = sorted({name for mark in marks for name, _ in mark.strata if name.startswith("skill ")})
    with_skill = (
        mean(f"skill: {name.removeprefix('skill ')}", f"items that need {name}", [m for m in marks if m.stratum(name)])
        for name in skills
    )
    return (mean("accuracy", "mean over all items", marks), *parts(marks, *_STRATA), *with_skill)


# ---- layouts ----


def _item(row: Row, image: ImageReference, query: str, metadata: Mapping[str, Any]) -> Item:
    strata = {name: str(metadata.get(name) or row.optional(name)) for name in _STRATA}
    strata |= {f"skill {skill}": "yes" for skill in _skills(metadata.get("skills") or row.values.get("skills"))}
    known = Item(
        id=row.optional("pid") or row.optional("index"),
        question="",
        images=(image,),
        truth=None,
        strata={name: value for name, value in strata.items() if value},
        facts={"split": metadata.get("split") or row.optional("split")},
    )
    return completed(known, row, functools.partial(_complete, row, query))


def _skills(value: Any) -> list[str]:
    """List of skills; a single one stands as plain text in tables."""
    try:
        return list_in(value, "skills")
    except BadRow:
        return [str(value)]


def _complete(row: Row, query: str, known: Item) -> Item:
    kind, answer_type, choices = (
        row.text("question_type"),
        row.text("answer_type"),
        list_in(row.values.get("choices"), "choices"),
    )
    answer = row.optional("answer") if known.facts["split"] == _TEST else row.text("answer")
    if answer_type not in ANSWER_TYPES or (kind != CHOICE and answer_type == "text"):
        raise BadRow(f"its question_type is {kind[:20]!r} and its answer_type {answer_type[:20]!r}")
    if not query:
        raise BadRow("query is missing, and there is no query.json beside the file")
    if kind == CHOICE and not choices:
        raise BadRow("it has no choices")
    if kind == CHOICE and answer and answer not in choices:
        raise BadRow(f"its answer {answer[:20]!r} is none of its choices")
    prompts = authors_file(row.path, "evaluation/prompts/ext_ans.py", *AUTHORS_NAMES)
    truth = answer if kind != CHOICE or not answer else list(lettered(choices))[choices.index(answer)]
    return replace(
        known,
        question=query,
        truth=truth or None,
        choices=tuple(choices),
        style=choice.RULE if kind == CHOICE else RULES,
        facts={
            **known.facts,
            "question": row.optional("question"),
            "query": query,
            "question_type": kind,
            "answer_type": answer_type,
            "answer": answer,
            "precision": _precision(row, answer) if answer_type == "float" else 0,
            "prompts": str(prompts) if prompts else "",
        },
    )


def _precision(row: Row, answer: str) -> int:
    """Decimal places of a decimal: those stated, or those that the answer has."""
    stated = row.optional("precision")
    if not stated:
        return len(answer.partition(".")[2])
    try:
        return int(float(stated))
    except (ValueError, OverflowError):
        raise BadRow(f"precision is {stated[:20]!r}") from None


def _parquet(row: Row) -> Item:
    return _item(row, row.image("decoded_image"), row.optional("query"), mapping_in(row.values.get("metadata")))


@functools.lru_cache(maxsize=2)
def _queries(path: Path) -> Mapping[str, str]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no readable JSON file ({error})") from None
    return found if isinstance(found, dict) else {}


def _release(row: Row) -> Item:
    # the release is a mapping by pid, which the reader of JSON puts under `key`
    named = {**row.values, "pid": row.optional("pid") or row.optional("key")}
    row = replace(row, values=named)
    beside = row.path.parent / "query.json"
    query = row.optional("query") or (str(_queries(beside).get(named["pid"], "")) if beside.is_file() else "")
    return _item(row, image_near(row, "image"), query, mapping_in(row.values.get("metadata")))


def _tsv(row: Row) -> Item:
    return _item(row, row.image(), row.optional("question"), mapping_in(row.values.get("metadata")))


def _only_testmini(layout: Layout) -> Layout:
    """Layout without the test split, whose answers are not published."""
    # by name first: rows of these large files are not even read
    layout = files_that(layout, lambda name: not name.lower().startswith("test-"))
    return items_that(layout, lambda item: item.facts.get("split") != _TEST)


_COLUMNS = ("question", "choices", "answer", "question_type", "answer_type")

_LAYOUTS = (
    table("parquet of AI4Math/MathVista", "**/*.parquet", (*_COLUMNS, "query", "decoded_image"), _parquet),
    table("data/testmini.json of lupantech/MathVista with images", "**/testmini.json", (*_COLUMNS, "image"), _release),
    table("MathVista_MINI.tsv of VLMEvalKit", "**/*MathVista*.tsv", (*_COLUMNS, "image"), _tsv),
)

MATHVISTA = Task(
    name=RULE,
    title="MathVista, testmini",
    source="AI4Math/MathVista",
    revision="main",
    expected=1_000,
    layouts=tuple(_only_testmini(layout) for layout in _LAYOUTS),
    score=score,
    rule=(
        "three stages of MathVista 53d5258 as published: an extraction that names no option, an empty one too, counts "
        "as the nearest; numbers are compared as text"
    ),
    figures=figures,
    hub_files=("data/testmini-*.parquet",),
)

MATHVISTA_CORRECTED = replace(
    MATHVISTA,
    name=CORRECTED,
    replies_of=RULE,
    title="MathVista, testmini, corrected rule",
    score=corrected_score,
    rule=(
        "as mathvista, but an empty extraction and a letter beyond the options are wrong, and numbers are compared as "
        "numbers"
    ),
)

TASKS = (MATHVISTA, MATHVISTA_CORRECTED)
