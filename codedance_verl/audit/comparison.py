"""Comparison of a training set with evaluation sets, in passes that hold no set of images in memory.

The first pass reads the evaluation sets, the second the training files: images are hashed, questions looked up,
answers linted. Near hashes give candidates. The third pass reads the candidates' images again, from the training files
in order, and compares pixels; a last one reads the questions of records with a copy.
"""

from __future__ import annotations

import itertools
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import cv2

from codedance_verl.audit.answer_lint import AnswerLint
from codedance_verl.audit.evaluation_items import Against, EvaluationItem, evaluation_items
from codedance_verl.audit.hash_search import near_pairs
from codedance_verl.audit.image_store import ImageStore, Small, SmallImages
from codedance_verl.audit.pixel_check import COPY_SCORE, copy_score
from codedance_verl.audit.question_match import Likeness, QuestionIndex, normalised
from codedance_verl.audit.thumbnails import hashes_of, view_hashes
from codedance_verl.audit.training_records import TrainingRecord, record_batches

_MOST_THREADS = 8
_ITEMS_AT_A_TIME = 32
_MOST_FORMS = 512  # small forms in memory at a time, of about 20 kB each
_NAMED = 5  # faults and records that are named

Progress = Callable[[str], None]


@dataclass(frozen=True)
class ItemEntry:
    """Evaluation item without its images, which are the numbers of those in the store."""

    set: str
    id: str
    question: str
    images: tuple[int, ...]


@dataclass
class EvaluationSide:
    """Items of all evaluation sets, their images and their questions, and lines on unreadable images by set."""

    items: list[ItemEntry]
    store: ImageStore
    questions: QuestionIndex
    faults: dict[str, list[str]]
    items_of_image: dict[int, list[int]]


@dataclass
class Asked:
    """Training records that ask a question like an item's: their number, the first of them, and how alike they are."""

    likeness: Likeness
    training_question: str
    records: list[str] = field(default_factory=list)
    count: int = 0


@dataclass
class TrainingSide:
    """Training records as they were read.

    `places` has file and row of each record, `records_of_image` the records with an image, by its number, and
    `asked` what records ask, by item.
    """

    store: ImageStore
    places: list[tuple[int, int]] = field(default_factory=list)
    records_of_image: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    asked: dict[int, Asked] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    bad_rows: int = 0
    unreadable: int = 0
    lint: AnswerLint = field(default_factory=AnswerLint)


@dataclass(frozen=True)
class Copy:
    """Images that are copies: their numbers, and the score."""

    evaluation_image: int
    training_image: int
    score: float


@dataclass
class Compared:
    """Both sides, the copies, small forms of the training images among them, the questions of the records that have
    one of these, and the number of candidates."""

    evaluation: EvaluationSide
    training: TrainingSide
    copies: list[Copy]
    shown: SmallImages
    questions: dict[int, str]
    candidates: int


def compare(training: Sequence[Path], against: Sequence[Against], progress: Progress = lambda line: None) -> Compared:
    """Compares training files with evaluation sets. Raises UserError where one of them cannot be read."""
    cv2.setNumThreads(1)  # pairs are compared side by side; threads within one would wait for each other
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as executor:
        evaluation = read_evaluation(against, executor)
        progress(f"{len(evaluation.items):,} evaluation items with {len(evaluation.store):,} images")
        found = read_training(training, evaluation, executor)
        progress(f"{len(found.places):,} training records with {len(found.store):,} images")
        candidates = _candidates(evaluation.store, found.store)
        total = sum(map(len, candidates.values()))
        progress(f"{total:,} pairs of images with near hashes, whose pixels are compared next")
        copies, shown = _checked(training, evaluation.store, found, candidates, executor)
    return Compared(evaluation, found, copies, shown, _questions(training, found, copies), total)


def read_evaluation(against: Sequence[Against], executor: Executor) -> EvaluationSide:
    """First pass: items of all sets, their images hashed."""
    store, entries, faults = (
        ImageStore(view_hashes, executor, keep=True),
        list[ItemEntry](),
        defaultdict[str, list[str]](list),
    )
    sets = [evaluation_items(each) for each in against]  # all of them first: one that is missing ends it at once
    items = itertools.chain.from_iterable(sets)
    items_of_image: dict[int, list[int]] = defaultdict(list)
    while held := list(itertools.islice(items, _ITEMS_AT_A_TIME)):
        for item, (numbers, reasons) in zip(held, store.add([item.images for item in held]), strict=True):
            faults[item.set] += [*item.faults, *(f"{item.id}: {reason}" for reason in reasons)]
            for number in dict.fromkeys(numbers):
                items_of_image[number].append(len(entries))
            entries.append(_entry(item, numbers))
    index = QuestionIndex([entry.question for entry in entries])
    return EvaluationSide(entries, store, index, faults, items_of_image)


def _entry(item: EvaluationItem, numbers: tuple[int, ...]) -> ItemEntry:
    return ItemEntry(item.set, item.id, item.question, numbers)


def read_training(paths: Iterable[Path], evaluation: EvaluationSide, executor: Executor) -> TrainingSide:
    """Second pass: records, their images hashed, their questions looked up, their answers linted."""
    side = TrainingSide(ImageStore(hashes_of, executor))
    for batch in record_batches(paths):
        stored = side.store.add([record.images for record in batch])
        for record, (numbers, reasons) in zip(batch, stored, strict=True):
            _add_record(side, record, numbers, reasons, evaluation.questions)
    return side


def _add_record(
    side: TrainingSide, record: TrainingRecord, numbers: Sequence[int], reasons: Sequence[str], index: QuestionIndex
) -> None:
    place = len(side.places)
    side.places.append((record.file, record.row))
    faults = [*filter(None, [record.fault]), *record.faults, *(f"{record.where}: {reason}" for reason in reasons)]
    side.faults += faults[: max(0, _NAMED - len(side.faults))]
    side.unreadable += len(record.faults) + len(reasons)
    if record.fault:
        side.bad_rows += 1
        return
    for number in dict.fromkeys(numbers):
        side.records_of_image[number].append(place)
    for item, likeness in index.alike(normalised(record.question)):
        asked = side.asked.setdefault(item, Asked(likeness, record.question))
        asked.count += 1
        if len(asked.records) < _NAMED:
            asked.records.append(record.where)
    if record.truth is not None:
        whole = None if record.faults or reasons else numbers
        side.lint.add(record.where, record.data_source, record.question, record.truth, whole)


def _candidates(evaluation: ImageStore, training: ImageStore) -> dict[int, list[int]]:
    """Numbers of the evaluation images that are near each training image, by the number of the latter."""
    by_training: dict[int, list[int]] = defaultdict(list)
    if not len(evaluation) or not len(training):
        return by_training
    readable_here, readable_there = evaluation.readable(), training.readable()
    for number, near in near_pairs(evaluation.rows(), training.rows()):
        if readable_here[number]:
            for other in near[readable_there[near]].tolist():
                by_training[other].append(number)
    return by_training


def _checked(
    paths: Sequence[Path],
    evaluation: ImageStore,
    side: TrainingSide,
    candidates: dict[int, list[int]],
    executor: Executor,
) -> tuple[list[Copy], SmallImages]:
    """Third pass: the copies among the candidates, and small forms of the training images among them."""
    copies, shown, waiting = list[Copy](), SmallImages(), set(candidates)
    for batch in record_batches(paths) if waiting else ():
        fresh = {number: data for number, data in _numbered(batch, side.store) if number in waiting}
        waiting.difference_update(fresh)
        for window in _windows(fresh, candidates, evaluation.small):
            for small, found in executor.map(_copies_of, window):
                copies += found
                for copy in found[:1]:
                    if copy.training_image not in shown:
                        shown[copy.training_image] = small
        if not waiting:
            break
    return copies, shown


_Pairs = tuple[int, bytes, dict[int, Small]]  # a training image by its number, and evaluation images near it


def _windows(
    images: Mapping[int, bytes], candidates: Mapping[int, Sequence[int]], small: SmallImages
) -> Iterator[list[_Pairs]]:
    """Training images with small forms of the images near them, at most `_MOST_FORMS` of these at a time.

    Forms are read here, as all threads share their file. An image with more of them comes in several windows.
    """
    held, forms = list[_Pairs](), 0
    for number, data in images.items():
        waiting = list(candidates[number])
        while waiting:
            part, waiting = waiting[: _MOST_FORMS - forms], waiting[_MOST_FORMS - forms :]
            held.append((number, data, {near: small[near] for near in part}))
            forms += len(part)
            if forms == _MOST_FORMS:
                yield held
                held, forms = [], 0
    if held:
        yield held


def _numbered(batch: Iterable[TrainingRecord], store: ImageStore) -> Iterator[tuple[int, bytes]]:
    for data in itertools.chain.from_iterable(record.images for record in batch):
        number = store.number_of(data)
        if number is not None:
            yield number, data


def _copies_of(work: _Pairs) -> tuple[Small, list[Copy]]:
    """Copies of one training image among evaluation images, and its small form."""
    number, data, near = work
    small = Small.of(data)
    thumb = small.thumbnail()
    scores = {
        other: 1.0 if of_other == small else copy_score(of_other.thumbnail(), thumb) for other, of_other in near.items()
    }
    return small, [Copy(other, number, score) for other, score in scores.items() if score >= COPY_SCORE]


def _questions(paths: Sequence[Path], side: TrainingSide, copies: Iterable[Copy]) -> dict[int, str]:
    """Questions of the records whose images are copies, by the number of the record."""
    wanted = {place for copy in copies for place in side.records_of_image[copy.training_image]}
    if not wanted:
        return {}
    records = itertools.chain.from_iterable(record_batches(paths, with_images=False))
    return {place: record.question for place, record in enumerate(records) if place in wanted}
