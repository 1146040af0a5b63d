"""MathVerse, testmini: 788 problems in five versions that move the text into the figure step by step.

The figure usually quoted (the authors' "w/o" score) asks for a direct answer, has a judge extract it, and a judge
compare it. In the version Vision Only the question stands in the image alone; the judge gets its text all the same.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from codedance_verl.data.fields import BadRow
from codedance_verl.grading.matchers import MODEL
from codedance_verl.grading.rules import choice
from codedance_verl.tasks.authors_texts import authors_file
from codedance_verl.tasks.figures import Figure, Mark, mean, means_by
from codedance_verl.tasks.item import ImageReference, Item, JudgeRequest, Score
from codedance_verl.tasks.math_rows import completed, image_near, items_that, mapping_in, parts
from codedance_verl.tasks.mathverse_judge import AUTHORS_NAMES, authors_prompts, extraction, prompts_of
from codedance_verl.tasks.rows import Row, columns_of, rows, table
from codedance_verl.tasks.task import Layout, Task

VERSIONS = ("Text Dominant", "Text Lite", "Vision Intensive", "Vision Dominant", "Vision Only")

CHOICE, FREE = "multi-choice", "free-form"

# Queries of the published files: for a direct answer ("w/o" score), and for one with its reasoning.
DIRECT, REASONED = "query_wo", "query_cot"

_OPTION = re.compile(r"^\s*([A-H])\s*[:.]\s*(.*?)\s*$", re.MULTILINE)
_OPTIONS_BEGIN = re.compile(r"choices\s*:", re.IGNORECASE)


def score(item: Item, reply: str) -> Score | JudgeRequest:
    """Request to the judge for the answer in a reply; an empty reply is wrong and no judge is asked."""
    if item.truth is None:
        return Score(None, prompts_of(item).rule, reason="the item has no truth")
    if not reply.strip():
        return Score(0.0, prompts_of(item).rule)
    return extraction(item, reply)


def figures(marks: Sequence[Mark]) -> tuple[Figure, ...]:
    """Mean over all versions, as published, and of each version, subject and subfield."""
    versions = {figure.name: figure for figure in means_by(marks, "version") if figure.name}
    ordered = (versions[name] for name in VERSIONS if name in versions)
    return (mean("accuracy", "mean over all items", marks), *ordered, *parts(marks, "kind", "subject", "subfield"))


# ---- layouts ----


def options_in(question: str) -> tuple[str, ...]:
    """Options behind the word "Choices:", in the order of their letters from A on."""
    begin = _OPTIONS_BEGIN.search(question)
    found = _OPTION.findall(question, begin.end()) if begin else []
    in_order = [text for place, (letter, text) in enumerate(found) if letter == chr(ord("A") + place)]
    # a letter out of order shows that something else was matched: then no option can be trusted
    return tuple(in_order) if len(in_order) == len(found) else ()


def _item(row: Row, image: ImageReference, query: str, questions: Mapping[str, str]) -> Item:
    """Item of a row; `query` is the column of the prompt, `questions` has texts of problems for rows without one."""
    metadata, problem = mapping_in(row.values.get("metadata")), row.optional("problem_index")
    strata = {"version": row.optional("problem_version"), "subject": str(metadata.get("subject") or "")}
    if subfield := metadata.get("subfield"):
        strata["subfield"] = f"{strata['subject']}, {subfield}"
    known = Item(
        id=row.optional("sample_index") or row.optional("index"),
        question="",
        images=(image,),
        truth=None,
        cluster=problem,
        strata={name: value for name, value in strata.items() if value},
    )
    return completed(known, row, functools.partial(_complete, row, query, questions.get(problem, "")))


def _complete(row: Row, query: str, question: str, known: Item) -> Item:
    kind, answer = row.text("question_type"), row.text("answer")
    if known.strata.get("version") not in VERSIONS:
        raise BadRow(f"problem_version is {row.optional('problem_version')[:20]!r}")
    if kind not in (CHOICE, FREE):
        raise BadRow(f"question_type is {kind[:20]!r}")
    question = row.optional("question_for_eval") or question or row.text("question")
    if prompts := authors_file(row.path, "evaluation/prompts.py", *AUTHORS_NAMES):
        authors_prompts(prompts)  # one that cannot be used ends the run before it begins
    return replace(
        known,
        question=row.text(query),
        truth=answer.strip(),
        choices=options_in(question) if kind == CHOICE else (),
        style=choice.RULE if kind == CHOICE else MODEL,
        graded_question=question,
        strata={**known.strata, "kind": "choice" if kind == CHOICE else "free"},
        facts={"question": question, "prompts": str(prompts) if prompts else ""},
    )


def _release(query: str, files: tuple[Path, ...]) -> Iterator[Item]:
    """Items of the authors' JSON. Its rows of Vision Only have no text: they get that of the version with the most."""
    for path in files:
        # two passes, as other versions of a problem may stand before or behind its row
        questions: dict[str, str] = {}
        for row in rows(path):
            problem, text = row.optional("problem_index"), row.optional("question")
            questions[problem] = max(questions.get(problem, ""), text, key=len)
        for row in rows(path):
            yield _item(
                row, image_near(row, "image", "images"), query, questions if not row.optional("question") else {}
            )


def _find_release(folder: Path) -> tuple[Path, ...]:
    found = sorted(path for path in folder.glob("**/testmini.json") if path.is_file())
    return tuple(path for path in found if {*_COLUMNS, "image"} <= columns_of(path))


_COLUMNS = ("problem_index", "problem_version", "question", "answer", "question_type")


def _layouts(query: str) -> tuple[Layout, ...]:
    def convert(row: Row) -> Item:
        return _item(row, row.image(), query, {})

    parquet, tsv = (*_COLUMNS, "image", query), ("image", *_COLUMNS, query)
    found = (
        # the files of single versions in the same folder hold the same rows again
        table("parquet of AI4Math/MathVerse", "**/testmini-*.parquet", parquet, convert),
        table("parquet of CaraJ/MathVerse-lmmseval", "**/*.parquet", parquet, convert),
        Layout("testmini.json of AI4Math/MathVerse with images", _find_release, functools.partial(_release, query)),
        table("MathVerse_MINIV.tsv of VLMEvalKit", "**/MathVerse_MINIV.tsv", tsv, convert),
        table("MathVerse_MINI*.tsv of VLMEvalKit", "**/*MathVerse*.tsv", tsv, convert),
    )
    # the sixth published version, which has no figure
    return tuple(items_that(layout, lambda item: item.strata.get("version") != "Text Only") for layout in found)


_RULE = (
    "judge that extracts an answer and one that compares it (MathVerse 937b090), asked 5 times at most; Vision Only is "
    "judged with its question; mathverse with the authors' prompts, mathverse_own_words with own ones"
)

MATHVERSE = Task(
    name="mathverse",
    title="MathVerse, testmini, five versions",
    source="AI4Math/MathVerse",
    revision="main",
    expected=3_940,
    layouts=_layouts(DIRECT),
    score=score,
    rule=_RULE,
    figures=figures,
    hub_files=("testmini.parquet", "**/testmini-*.parquet", "testmini.json"),
)

MATHVERSE_REASONED = replace(
    MATHVERSE,
    name="mathverse_cot",
    title="MathVerse, testmini, five versions, reasoning asked for",
    layouts=_layouts(REASONED),
    rule=f"{_RULE}; asked with query_cot, so that figures do not compare with those of query_wo",
)


def of_version(task: Task, version: str) -> Task:
    """Task with the items of one version."""
    return replace(
        task,
        name=f"{task.name}_{version.lower().replace(' ', '_')}",
        title=task.title.replace("five versions", version),
        expected=788,
        # a row without a version may be of any, and counts as wrong in each
        layouts=tuple(
            items_that(layout, lambda item: item.strata.get("version", version) == version) for layout in task.layouts
        ),
    )


TASKS = (
    MATHVERSE,
    *(of_version(MATHVERSE, version) for version in VERSIONS),
    MATHVERSE_REASONED,
    of_version(MATHVERSE_REASONED, "Vision Only"),
)
