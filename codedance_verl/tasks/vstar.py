"""V* bench: 191 questions on small things in large photographs, with 2 or 4 options.

The published loop compares token losses of option texts, which an endpoint does not give. Figures of models that
answer in words are by letters, and depend on the order of the options: in the files of single images the first option
is always right. `vstar` has the shuffled order of the published questions, `vstar_unshuffled` that order, for
comparison with figures that were made with it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from codedance_verl.data.fields import BadRow
from codedance_verl.grading.rules import choice
from codedance_verl.grading.rules.options import options_of
from codedance_verl.tasks.figures import Figure, Mark, mean, means_by
from codedance_verl.tasks.item import ImageReference, Item, Score
from codedance_verl.tasks.letters import letter_in_sentence, lettered
from codedance_verl.tasks.references import ImageFile, NoImage
from codedance_verl.tasks.rows import Row, converted, rows, table
from codedance_verl.tasks.task import Layout, Task

RULE = "letter"

CATEGORIES = ("direct_attributes", "relative_position")
"""Folders that make up the 191; `GPT4V-hard` and `OCR` are none of them."""

_INSTRUCTION = "Answer with the option's letter from the given choices directly."
_IMAGES = (".jpg", ".jpeg", ".png", ".webp")
_FIRST_OPTION = re.compile(r"^\s*\(?A[).]\s", re.MULTILINE)


def score(item: Item, reply: str) -> Score:
    """Score of the letter of the one option that a reply names, in letters or in its text."""
    if item.truth is None:
        return Score(None, RULE, reason="the item has no truth")
    letter = letter_in_sentence(reply, lettered(item.choices))
    return Score.of(letter == item.truth, RULE, letter or None)


def figures(marks: Sequence[Mark]) -> tuple[Figure, ...]:
    """Mean of all items, as published, and of each category."""
    categories = (part for part in means_by(marks, "category") if part.name)
    return (mean("accuracy", "mean over all items", marks), *categories)


def option_prompt(question: str, choices: Sequence[str]) -> str:
    """Question with its lettered options and the instruction of the published questions."""
    options = (f"({letter}) {text}" for letter, text in lettered(choices).items())
    return "\n".join((question.strip(), *options, _INSTRUCTION))


# ---- layouts ----


def _item(name: str, category: str, question: str, choices: Sequence[str], right: int, image: ImageReference) -> Item:
    """Item whose right option is number `right` of the choices."""
    return Item(
        id=name,
        question=option_prompt(question, choices),
        images=(image,),
        truth=list(lettered(choices))[right],
        choices=tuple(choices),
        style=choice.RULE,
        strata={"category": category},
        facts={"question": question},
    )


def _lettered_text(row: Row) -> Item:
    """Row of test_questions.jsonl or of the parquet form, whose text holds options and instruction."""
    text, letter = row.text("text").replace(_INSTRUCTION, "").strip(), row.text("label").strip().upper()
    options, first = options_of(text), _FIRST_OPTION.search(text)
    if letter not in options or first is None:
        raise BadRow(f"its label is {letter[:20]!r}, and its text has the options {', '.join(options) or 'none'}")
    right, name = list(options).index(letter), row.optional("question_id")
    question = text[: first.start()].strip()
    item = _item(name, row.optional("category"), question, tuple(options.values()), right, row.image())
    return _with_boxes(item, _beside(item.images[0]))


def _beside(image: ImageReference) -> Mapping[str, object]:
    """Values of the file of one image, where it lies beside the image; else none."""
    try:
        values = json.loads(image.path.with_suffix(".json").read_bytes()) if isinstance(image, ImageFile) else {}
    except (OSError, ValueError):  # boxes are no part of the question
        return {}
    return values if isinstance(values, dict) else {}


def _tsv(row: Row) -> Item:
    choices = [text for text in map(row.optional, "ABCD") if text]
    letter = row.text("answer").strip().upper()
    if letter not in lettered(choices):
        raise BadRow(f"its answer is {letter[:20]!r}, and it has {len(choices)} options")
    right, name = list(lettered(choices)).index(letter), row.optional("index")
    return _item(name, row.optional("category"), row.text("question"), choices, right, row.image())


def _single(row: Row) -> Item:
    """File of one image, whose first option is right."""
    options = row.values.get("options")
    if not isinstance(options, list) or not options:
        raise BadRow("it has no options")
    category, stem = row.path.parent.name, row.path.stem
    images = (row.path.with_suffix(suffix) for suffix in _IMAGES)
    image = next(
        (ImageFile(path, row.where) for path in images if path.is_file()), NoImage(row.where, "it has no image")
    )
    item = _item(f"{category}/{stem}", category, row.text("question"), [str(text) for text in options], 0, image)
    return _with_boxes(item, row.values)


def _with_boxes(item: Item, values: Mapping[str, object]) -> Item:
    """Item with the boxes of a file of one image as the fact `boxes`."""
    return replace(item, facts={**item.facts, "boxes": _boxes(values.get("bbox"))})


def _boxes(values: object) -> tuple[tuple[int, int, int, int], ...]:
    """Edges (left, top, right, bottom) in pixels of boxes that a file gives by left, top, width and height."""
    rows = values if isinstance(values, list) else []
    whole = [row for row in rows if isinstance(row, list) and len(row) == 4 and all(map(_is_number, row))]
    return tuple((int(x), int(y), round(x + width), round(y + height)) for x, y, width, height in whole)


def _is_number(value: object) -> bool:
    # the bound keeps out NaN and infinity too, which have no whole pixels
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e6


def _find_singles(folder: Path) -> tuple[Path, ...]:
    found = (path for category in CATEGORIES for path in folder.glob(f"**/{category}/*.json"))
    return tuple(sorted(found))


def _singles(files: tuple[Path, ...]) -> Iterator[Item]:
    return (converted(row, _single) for path in files for row in rows(path))


_ROWS = ("image", "text", "category", "question_id", "label")
_JSON_LINES = table("test_questions.jsonl of craigwu/vstar_bench", "**/test_questions.jsonl", _ROWS, _lettered_text)
_TABLES = (
    table("parquet of lmms-lab/vstar-bench", "**/*.parquet", _ROWS, _lettered_text),
    table("VStarBench.tsv of VLMEvalKit", "**/*VStar*.tsv", ("image", "question", "answer", "category"), _tsv),
)
_SINGLES = Layout("folders direct_attributes and relative_position of craigwu/vstar_bench", _find_singles, _singles)


# ---- orders of the options ----


def _with_order(item: Item, order: Sequence[int]) -> Item:
    """Item with its options in another order, as numbers of them."""
    if item.fault or item.truth is None:
        return item
    right = list(lettered(item.choices)).index(item.truth)
    choices, question = [item.choices[place] for place in order], item.facts["question"]
    new = _item(item.id, item.strata["category"], question, choices, list(order).index(right), item.images[0])
    return replace(new, strata=item.strata, facts=item.facts)


def _shuffled(item: Item) -> Item:
    """Item with its options in an order that its id and their texts decide."""

    def key(place: int) -> str:
        # a hash, as draws of a generator may change with its version
        return hashlib.sha256(f"{item.id}\n{place}\n{item.choices[place]}".encode()).hexdigest()

    return _with_order(item, sorted(range(len(item.choices)), key=key))


def _right_first(item: Item) -> Item:
    """Item with its right option first, and the others in their order."""
    letters = list(lettered(item.choices))
    return _with_order(item, sorted(range(len(letters)), key=lambda place: letters[place] != item.truth))


def _each(layout: Layout, change: Callable[[Item], Item]) -> Layout:
    return replace(layout, items=lambda files: map(change, layout.items(files)))


_RULE = (
    "no official rule for answers in words: letter of the one option that the reply names, in letters or in its text"
)

VSTAR = Task(
    name="vstar",
    title="V* bench",
    source="craigwu/vstar_bench",
    revision="d9ae62c",
    expected=191,
    layouts=(_JSON_LINES, *_TABLES, _each(_SINGLES, _shuffled)),
    score=score,
    rule=_RULE,
    figures=figures,
    hub_files=("test_questions.jsonl", *(f"{category}/*" for category in CATEGORIES)),
)

VSTAR_UNSHUFFLED = replace(
    VSTAR,
    name="vstar_unshuffled",
    title="V* bench, unshuffled: the right option is always the first",
    layouts=(_SINGLES, *(_each(layout, _right_first) for layout in (_JSON_LINES, *_TABLES))),
    rule=f"{_RULE}; not comparable with shuffled figures, as always answering A is right",
)

TASKS = (VSTAR, VSTAR_UNSHUFFLED)
