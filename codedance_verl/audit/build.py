"""Findings of a comparison: pairs with their questions, joint and single cases apart, figures by evaluation set."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from codedance_verl.audit.comparison import Asked, Compared, Copy
from codedance_verl.audit.findings import Findings, ImagePair, QuestionMatch, SetFigures, Training
from codedance_verl.audit.lengths import Lengths
from codedance_verl.audit.question_match import Likeness, likeness, normalised

NOT_COVERED = (
    "images that were turned, mirrored, sheared or set into a border: most of these are not found",
    "images whose light and dark were exchanged, or whose brightness was raised until much of them is white",
    "crops of more than about a tenth of a side, and several edits of one image",
    "another photograph of the same scene, or a chart drawn anew from the same data: these are no copies of pixels",
    "questions in other words or in another language",
)
"""Copies that the audit does not look for, or mostly does not find."""

MOST_FAULTS = 20
"""Lines on what could not be read of an evaluation set, at most."""

_MOST_COMPARED = 10_000  # questions of an image pair: some images have thousands of records
MOST_NAMED = 20
"""Items and records that a pair names, at most."""


@dataclass
class _Cases:
    """Items and records of an evaluation set by case."""

    joint_items: set[int] = field(default_factory=set)
    image_items: set[int] = field(default_factory=set)
    joint_records: set[int] = field(default_factory=set)
    image_records: set[int] = field(default_factory=set)


def findings(compared: Compared, files: Sequence[Path], lengths: Lengths | None = None) -> Findings:
    """Findings of a comparison of these training files."""
    cases: dict[str, _Cases] = defaultdict(_Cases)
    pairs = [pair for copy in compared.copies for pair in _image_pairs(compared, copy, files, cases)]
    pairs.sort(key=lambda pair: (not pair.joint, -pair.score))
    matches = _question_matches(compared, cases)
    joint = {place for case in cases.values() for place in case.joint_records}
    image = {place for case in cases.values() for place in case.image_records} - joint
    side = compared.training
    readable = int(side.store.readable().sum())
    training = Training(
        tuple(map(str, files)), len(side.places), readable, side.bad_rows, side.unreadable, tuple(side.faults)
    )
    return Findings(
        training,
        tuple(
            _figures(compared, name, cases[name])
            for name in dict.fromkeys(item.set for item in compared.evaluation.items)
        ),
        tuple(pairs),
        tuple(matches),
        _rows(compared, joint, files),
        _rows(compared, image, files),
        compared.candidates,
        side.lint.found(),
        side.lint.balance(),
        lengths,
        NOT_COVERED,
    )


def _image_pairs(
    compared: Compared, copy: Copy, files: Sequence[Path], cases: dict[str, _Cases]
) -> Iterable[ImagePair]:
    """Pairs of a copy, one for each evaluation set that has the image."""
    by_set: dict[str, list[int]] = defaultdict(list)
    for item in compared.evaluation.items_of_image[copy.evaluation_image]:
        by_set[compared.evaluation.items[item].set].append(item)
    records = compared.training.records_of_image[copy.training_image]
    for name, items in by_set.items():
        alike = _alike(compared, items, records)
        case = cases[name]
        case.image_items.update(items)
        case.image_records.update(records)
        case.joint_items.update(item for item, _, _ in alike)
        case.joint_records.update(record for _, record, _ in alike)
        item, record, how = alike[0] if alike else (items[0], records[0], None)
        yield ImagePair(
            name,
            tuple(compared.evaluation.items[number].id for number in items[:MOST_NAMED]),
            tuple(_where(compared, number, files) for number in records[:MOST_NAMED]),
            len(records),
            round(copy.score, 4),
            bool(alike),
            how,
            compared.evaluation.items[item].question,
            compared.questions.get(record, ""),
            copy.evaluation_image,
            copy.training_image,
        )


def _alike(compared: Compared, items: Sequence[int], records: Sequence[int]) -> list[tuple[int, int, Likeness]]:
    """Items and records that share an image and ask alike, the most alike first."""
    asked = {record: normalised(compared.questions.get(record, "")) for record in records[:_MOST_COMPARED]}
    pairs = itertools.islice(itertools.product(items, asked), _MOST_COMPARED)
    found = [(item, record, likeness(asked[record], compared.evaluation.questions[item])) for item, record in pairs]
    order = list(Likeness)
    return sorted(((i, r, how) for i, r, how in found if how is not None), key=lambda each: order.index(each[2]))


def _question_matches(compared: Compared, cases: dict[str, _Cases]) -> list[QuestionMatch]:
    """Questions that are asked in the training set, but of items whose image is in it."""
    found = []
    for number, asked in sorted(compared.training.asked.items()):
        entry = compared.evaluation.items[number]
        if number not in cases[entry.set].image_items:
            found.append(_match(entry.set, entry.id, entry.question, asked))
    return found


def _match(name: str, item: str, question: str, asked: Asked) -> QuestionMatch:
    return QuestionMatch(
        name, item, asked.likeness, question, asked.training_question, tuple(asked.records), asked.count
    )


def _figures(compared: Compared, name: str, case: _Cases) -> SetFigures:
    numbers = [number for number, item in enumerate(compared.evaluation.items) if item.set == name]
    images = {image for number in numbers for image in compared.evaluation.items[number].images}
    asked = sum(number in compared.training.asked and number not in case.image_items for number in numbers)
    return SetFigures(
        name,
        len(numbers),
        len(images),
        len(case.joint_items),
        len(case.image_items - case.joint_items),
        asked,
        len(case.joint_records),
        len(case.image_records - case.joint_records),
        len(compared.evaluation.faults[name]),
        tuple(compared.evaluation.faults[name][:MOST_FAULTS]),
    )


def _where(compared: Compared, record: int, files: Sequence[Path]) -> str:
    file, row = compared.training.places[record]
    return f"{files[file].name} row {row}"


def _rows(compared: Compared, records: Iterable[int], files: Sequence[Path]) -> dict[str, tuple[int, ...]]:
    """Numbers of rows by file."""
    by_file: dict[str, list[int]] = defaultdict(list)
    for file, row in sorted(compared.training.places[record] for record in records):
        by_file[str(files[file])].append(row)
    return {name: tuple(rows) for name, rows in by_file.items()}
