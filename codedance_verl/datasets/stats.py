"""Counts over record files: sources, labels, images and their sizes, lengths of texts, balance of answers."""

from __future__ import annotations

import functools
import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from codedance_verl import images
from codedance_verl.data.fields import Source, read_source
from codedance_verl.data.reading import ReadRow, fault_line
from codedance_verl.data.rows import CanonicalRow
from codedance_verl.datasets.parts import SHOWN_FAULTS, stop_line
from codedance_verl.datasets.pieces import Piece, canonical_rows
from codedance_verl.datasets.pool import in_order
from codedance_verl.errors import UserError

LABELS = ("data_source", "style", "ability", "kind", "difficulty", "split", "roles")
MOST_VALUES = 200_000
"""Values of a label or answer that are counted exactly; of more, the rarer half is forgotten now and then."""

_UNREADABLE = "not readable"


@dataclass
class Stats:
    """Counts of the records of a piece, or of all.

    Attributes:
        records, bad: rows that can be used, and those that cannot.
        labels: values of each of `LABELS` with their counts; `roles` is the order of the messages.
        answers: ground truths with their counts.
        images_of_record: counts of images of a record.
        megapixels: images by the power of two from which their pixels are, in millions; 0.25 is 250,000 to 500,000.
        question_chars, answer_chars: texts by the power of two from which their length is.
        digests: the first 8 bytes of each image's SHA-256, as numbers.
        lines: bad rows.
    """

    records: int = 0
    bad: int = 0
    labels: dict[str, Counter[str]] = field(default_factory=lambda: {name: Counter() for name in LABELS})
    answers: Counter[str] = field(default_factory=Counter)
    images_of_record: Counter[int] = field(default_factory=Counter)
    megapixels: Counter[str] = field(default_factory=Counter)
    question_chars: Counter[int] = field(default_factory=Counter)
    answer_chars: Counter[int] = field(default_factory=Counter)
    digests: np.ndarray[Any, np.dtype[np.uint64]] = field(default_factory=lambda: np.zeros(0, np.uint64))
    lines: list[str] = field(default_factory=list)

    def add(self, other: Stats) -> None:
        """Takes in the counts of a piece."""
        self.records, self.bad = self.records + other.records, self.bad + other.bad
        for name, found in other.labels.items():
            self.labels[name] = _most_frequent(self.labels[name] + found)
        for name in ("answers", "images_of_record", "megapixels", "question_chars", "answer_chars"):
            getattr(self, name).update(getattr(other, name))
        self.answers = _most_frequent(self.answers)
        # a number for each distinct image is all that is held of the images
        self.digests = np.union1d(self.digests, other.digests)
        self.lines += other.lines[: SHOWN_FAULTS - len(self.lines)]

    def document(self) -> dict[str, Any]:
        """Counts as JSON takes them, the most frequent values first."""
        shown = {name: dict(found.most_common(20)) for name, found in self.labels.items() if found}
        return {
            "records": self.records,
            "bad": self.bad,
            **shown,
            "answers": dict(self.answers.most_common(20)),
            "images": sum(count * rows for count, rows in self.images_of_record.items()),
            "distinct_images": len(self.digests),
            "images_of_record": _by_key(self.images_of_record),
            "megapixels": dict(sorted(self.megapixels.items(), key=lambda item: _as_number(item[0]))),
            "question_chars": _by_key(self.question_chars),
            "answer_chars": _by_key(self.answer_chars),
        }


@dataclass(frozen=True)
class StatsJob:
    """Counting of a piece."""

    skip_bad: bool = False

    def __call__(self, piece: Piece) -> Stats:
        found, digests = Stats(), set[int]()
        for read in canonical_rows(piece):
            if read.row is None:
                self._count_bad(found, read, piece.path)
                continue
            _count(found, read.row)
            digests.update(_image(found, source) for source in read.row.sources)
        found.digests = np.array(sorted(digests), np.uint64)
        return found

    def _count_bad(self, found: Stats, read: ReadRow, path: Path) -> None:
        if not self.skip_bad:
            raise UserError(stop_line(path, read.number, read.fault))
        found.bad += 1
        if len(found.lines) < SHOWN_FAULTS:
            found.lines.append(fault_line(path, read.number, read.fault))


def gather(
    pieces: Sequence[Piece], workers: int, skip_bad: bool = False, progress: Callable[[int, int], None] | None = None
) -> Stats:
    """Counts all pieces. Raises UserError at a bad row, unless `skip_bad`."""
    total, done, rows = Stats(), 0, sum(piece.rows for piece in pieces)
    for piece, found in zip(pieces, in_order(StatsJob(skip_bad), pieces, workers), strict=True):
        total.add(found)
        done += piece.rows
        if progress is not None:
            progress(done, rows)
    return total


def lines_of(document: Mapping[str, Any]) -> Iterator[str]:
    """Yields the counts as text."""
    for name, value in document.items():
        if isinstance(value, Mapping):
            shown = ", ".join(f"{_shortened(str(key))} {count}" for key, count in list(value.items())[:12])
            yield f"{name}: {shown}{', …' if len(value) > 12 else ''}"
        else:
            yield f"{name}: {value}"


def _count(found: Stats, row: CanonicalRow[Source]) -> None:
    found.records += 1
    stated = {"data_source": row.data_source, "style": row.style if row.data_source else None, "ability": row.ability}
    stated |= {name: row.extra_info.get(name) for name in ("kind", "difficulty", "split")}
    if not row.data_source:
        stated["style"] = row.extra_info.get("style")
    for name, value in stated.items():
        if value not in (None, ""):
            found.labels[name][str(value)] += 1
    roles = [message.role for message in row.messages]
    found.labels["roles"][" ".join(roles) if len(roles) <= 4 else f"{len(roles)} messages"] += 1
    found.images_of_record[len(row.sources)] += 1
    found.question_chars[_power(len(row.question))] += 1
    if row.ground_truth:
        found.answers[row.ground_truth[:100]] += 1
        found.answer_chars[_power(len(row.ground_truth))] += 1


def _image(found: Stats, source: Source) -> int:
    """Counts the size of an image; returns its digest as a number."""
    if isinstance(source, Path):
        digest, size = _file(source)
    else:
        digest, size = hashlib.sha256(source).digest(), _megapixels(source)
    found.megapixels[size] += 1
    return int.from_bytes(digest[:8], "big")


@functools.lru_cache(maxsize=65_536)
def _file(path: Path) -> tuple[bytes, str]:
    """Digest and size of an image file, which many records may refer to. One that cannot be read counts as such."""
    try:
        data = read_source(path, "")
    except Exception:  # `data check` names the row and the cure
        return hashlib.sha256(str(path).encode()).digest(), _UNREADABLE
    return hashlib.sha256(data).digest(), _megapixels(data)


def _megapixels(data: bytes) -> str:
    try:
        width, height = images.shown_size(data)
    except Exception:  # decoders of damaged files raise anything
        return _UNREADABLE
    return f"{2.0 ** math.floor(math.log2(max(1, width * height) / 1e6)):.3g}"


def _most_frequent(counts: Counter[str]) -> Counter[str]:
    return counts if len(counts) <= MOST_VALUES else Counter(dict(counts.most_common(MOST_VALUES // 2)))


def _power(length: int) -> int:
    return 1 << (length.bit_length() - 1) if length else 0


def _by_key(counts: Counter[int]) -> dict[str, int]:
    return {str(key): count for key, count in sorted(counts.items())}


def _as_number(text: str) -> float:
    return math.inf if text == _UNREADABLE else float(text)


def _shortened(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:39]}…"
