"""Findings of an audit, as `audit.json` has them: pairs, figures of each evaluation set, lint, balance, lengths."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from codedance_verl.audit.answer_lint import Balance, Lint
from codedance_verl.audit.lengths import Lengths
from codedance_verl.audit.question_match import Likeness
from codedance_verl.runtime.atomic import write_atomically
from codedance_verl.runtime.text import visible

SCHEMA_VERSION = 1
_HALF = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class ImagePair:
    """Evaluation image and training image that are copies of one another.

    Attributes:
        set, items: evaluation set and the ids of its items with the image; at most `build.MOST_NAMED`.
        records: training records with the image, as `FILE row NUMBER`; at most `build.MOST_NAMED`.
        record_count: training records with the image, all of them.
        score: agreement of the pixels, `COPY_SCORE` to 1; 1 for files that are the same byte by byte.
        joint: True where one of the records also asks the question of one of the items.
        likeness: how those questions are alike; None where they are not.
        evaluation_question, training_question: these questions, else those of the first item and record.
        evaluation_image, training_image: numbers of the images, by which the page finds them.
    """

    set: str
    items: tuple[str, ...]
    records: tuple[str, ...]
    record_count: int
    score: float
    joint: bool
    likeness: Likeness | None
    evaluation_question: str
    training_question: str
    evaluation_image: int
    training_image: int


@dataclass(frozen=True)
class QuestionMatch:
    """Evaluation question that training records ask about another image, or about none.

    `records` names the first of them, `record_count` counts all, `training_question` is that of the first one.
    """

    set: str
    item: str
    likeness: Likeness
    evaluation_question: str
    training_question: str
    records: tuple[str, ...]
    record_count: int


@dataclass(frozen=True)
class SetFigures:
    """Figures of an evaluation set.

    Attributes:
        items, images: items, and different images of them.
        joint: items whose image and question are both in one training record.
        image_only: items of which an image is in the training set, and the question not with it.
        question_only: items of which only the question is.
        records_joint, records_image: training records of these kinds; a record of the first is none of the second.
        unreadable: images and rows of it that could not be read, and so were not compared.
        faults: lines on these, at most `build.MOST_FAULTS`.
    """

    set: str
    items: int
    images: int
    joint: int
    image_only: int
    question_only: int
    records_joint: int
    records_image: int
    unreadable: int
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class Training:
    """Training set: its files, records, different images, bad rows, and lines on the first few of those."""

    files: tuple[str, ...]
    records: int
    images: int
    bad_rows: int
    unreadable_images: int
    faults: tuple[str, ...]


@dataclass(frozen=True)
class Findings:
    """Findings of an audit.

    `rows_joint` and `rows_image` have, by training file, the numbers of the rows with image and question, and with the
    image alone, of any evaluation set. `candidates` are the pairs of images whose pixels were compared.
    """

    training: Training
    sets: tuple[SetFigures, ...]
    image_pairs: tuple[ImagePair, ...]
    question_matches: tuple[QuestionMatch, ...]
    rows_joint: dict[str, tuple[int, ...]]
    rows_image: dict[str, tuple[int, ...]]
    candidates: int
    lint: tuple[Lint, ...]
    balance: tuple[Balance, ...]
    lengths: Lengths | None = None
    not_covered: tuple[str, ...] = field(default_factory=tuple)
    schema_version: int = SCHEMA_VERSION

    def write(self, path: Path) -> None:
        """Writes the findings as JSON, whole or not at all; half a surrogate pair becomes its code point."""
        document = _encodable(msgspec.to_builtins(self))
        write_atomically(path, msgspec.json.format(msgspec.json.encode(document), indent=1))


def _encodable(value: Any) -> Any:
    """Value whose texts UTF-8 can hold: names of files and texts of benchmarks may be others."""
    if isinstance(value, str):
        return visible(value) if _HALF.search(value) else value
    if isinstance(value, dict):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    return [_encodable(item) for item in value] if isinstance(value, list | tuple) else value
