"""MathVision (MATH-V): 3,040 questions of competitions in mathematics, half with five options; testmini has 304."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from codedance_verl.data.fields import BadRow
from codedance_verl.grading.matchers import RULE as RULES
from codedance_verl.grading.rules import choice
from codedance_verl.tasks.figures import Figure, Mark, mean
from codedance_verl.tasks.item import ImageReference, Item
from codedance_verl.tasks.letters import lettered
from codedance_verl.tasks.math_rows import completed, files_that, image_near, list_in, parts
from codedance_verl.tasks.mathvision_rule import LETTERS, score
from codedance_verl.tasks.rows import Row, table
from codedance_verl.tasks.task import Layout, Task

_INSTRUCTION = r"Put the final answer into one \boxed{}: the letter alone where there are options."

# Golds of the published file that hold more than the answer, for the figure called ours.
_BOXED_GOLD = re.compile(r"\$?\\boxed\{(.*)\}\$?")
_WORDS_BEHIND = re.compile(r"\s*\{[a-z ]+\}$")


def figures(marks: Sequence[Mark]) -> tuple[Figure, ...]:
    """Mean of all items, as published, of questions with and without options, of each level and each subject."""
    return (mean("accuracy", "mean over all items", marks), *parts(marks, "kind", "level", "subject"))


# ---- layouts ----


def prompt(question: str, options: Sequence[str]) -> str:
    """Question as asked; options that are in the image are not listed."""
    listed = {} if "".join(options) == LETTERS else lettered(options)
    lines = (f"({letter}) {text}" for letter, text in listed.items())
    return "\n".join((question.strip(), *lines, _INSTRUCTION))


def repaired(gold: str) -> str:
    r"""Gold of an open question for the grader: without `\boxed`, words in brackets behind it, a broken `\f`."""
    # an unescaped `\frac` in JSON has become a form feed and `rac`
    gold = gold.replace("\f", "\\f").strip()
    if boxed := _BOXED_GOLD.fullmatch(gold):
        gold = boxed.group(1)
    return _WORDS_BEHIND.sub("", gold)


def _item(row: Row, columns: Mapping[str, str], image: ImageReference, question: str = "") -> Item:
    """Item of a row; `columns` are the names of its id, options and subject; `question` is a prompt that is whole."""
    level = row.optional("level").removesuffix(".0")
    strata = {"level": level, "subject": row.optional(columns["subject"])}
    known = Item(row.optional(columns["id"]), "", (image,), None, strata={k: v for k, v in strata.items() if v})

    def complete(known: Item) -> Item:
        options, answer = list_in(row.values.get(columns["options"]), "options"), row.text("answer")
        # by length too, as `AB` is within the letters
        if options and (len(answer) != 1 or answer not in LETTERS[: len(options)]):
            raise BadRow(f"its answer is {answer[:20]!r}, and it has {len(options)} options")
        option = options[LETTERS.index(answer)] if options else ""
        return Item(
            id=known.id,
            question=question or prompt(row.text("question"), options),
            images=known.images,
            truth=answer if options else repaired(answer),
            choices=tuple(options),
            style=choice.RULE if options else RULES,
            strata={**known.strata, "kind": "choice" if options else "free"},
            facts={"question": row.text("question"), "answer": answer, "option": option},
        )

    return completed(known, row, complete)


_HUB = {"id": "id", "options": "options", "subject": "subject"}
_VLMEVALKIT = {"id": "index", "options": "choices", "subject": "category"}


def _parquet(row: Row) -> Item:
    return _item(row, _HUB, row.image("decoded_image"))


def _release(row: Row) -> Item:
    return _item(row, _HUB, image_near(row, "image"))


def _tsv(row: Row) -> Item:
    return _item(row, _VLMEVALKIT, row.image(), row.optional("question"))


def _layouts(split: str) -> tuple[Layout, ...]:
    """Layouts of a split, by the names of its files: `testmini` begins with `test`."""
    hub, release = ("id", "question", "options", "answer", "decoded_image"), ("id", "question", "options", "answer")
    mini = split == "testmini"
    return tuple(
        files_that(layout, lambda name: ("mini" in name.lower()) == mini)
        for layout in (
            table("parquet of MathLLMs/MathVision", "**/*test*.parquet", hub, _parquet),
            table(
                f"data/{split}.jsonl of mathllm/MATH-V with images", "**/*test*.jsonl", (*release, "image"), _release
            ),
            table("MathVision.tsv of VLMEvalKit", "**/*MathVision*.tsv", ("image", "question", "answer"), _tsv),
        )
    )


MATHVISION = Task(
    name="mathvision",
    title="MathVision, test",
    source="MathLLMs/MathVision",
    revision="main",
    expected=3_040,
    layouts=_layouts("test"),
    score=score,
    rule="rules of MATH-V a1f5cc3, no judge: equal texts, or values to two decimals, found by a grammar of our own",
    figures=figures,
    hub_files=("data/test-*.parquet",),
)

TESTMINI = Task(
    name="mathvision_testmini",
    title="MathVision, testmini",
    source=MATHVISION.source,
    revision=MATHVISION.revision,
    expected=304,
    layouts=_layouts("testmini"),
    score=score,
    rule=MATHVISION.rule,
    figures=figures,
    hub_files=("data/testmini-*.parquet",),
)

TASKS = (MATHVISION, TESTMINI)
