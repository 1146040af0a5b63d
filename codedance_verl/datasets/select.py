"""Samples and splits of record files, row by row in the order of the files."""

from __future__ import annotations

import functools
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from codedance_verl.data.fields import BadRow, Source, read_source
from codedance_verl.data.reading import ReadRow, open_rows
from codedance_verl.data.rows import CanonicalRow, Kind
from codedance_verl.datasets.image_store import ImageStore
from codedance_verl.datasets.parts import Fault, Made
from codedance_verl.datasets.pieces import Piece, canonical_rows
from codedance_verl.datasets.stored import SCHEMAS, image_paths, stated_name, stored_row
from codedance_verl.errors import UserError
from codedance_verl.types import IMAGE_PLACEHOLDER

_STORED = re.compile("[0-9a-f]{64}")
TRAIN, VAL = "train", "val"
SPLIT_BY = ("image", "question", "record")


@dataclass(frozen=True)
class Target:
    """File that records will stand in, the folder of its images, and the kind of the records.

    `shared_stems` are names, without ending, that several of the files have.
    """

    out: Path
    images: Path
    kind: Kind
    shared_stems: tuple[str, ...] = ()

    def row(self, read: ReadRow, file: Path) -> dict[str, Any]:
        """Stored form of a good row of `file`.

        Raises UserError: a name has to be made of the file's, and another file has the same.
        """
        assert read.row is not None
        if file.stem in self.shared_stems and not stated_name(read.row):
            raise UserError(
                f"{file} row {read.number} has no record_id, and one made of the name of the file would not be unique: "
                f"several files are named {file.stem}; rename them"
            )
        images = image_paths(read.row.sources, ImageStore(self.images), self.out, copy_files=False)
        return stored_row(read.row, images, f"{read.row.data_source or 'record'}/{file.stem}:{read.number}", self.kind)


@dataclass(frozen=True)
class SampleJob:
    """Rows drawn from each piece without replacement, as many as `counts` says, in the order of the file."""

    target: Target
    seed: int
    counts: Mapping[tuple[str, int], int] = field(default_factory=dict)

    @property
    def schema(self) -> pa.Schema:
        return SCHEMAS[self.target.kind]

    def __call__(self, piece: Piece) -> Iterator[Made | Fault]:
        count = self.counts.get((str(piece.path), piece.first_row), 0)
        if not count:
            return
        random = np.random.default_rng([self.seed, _number(f"{piece.path.name}:{piece.first_row}")])
        chosen = set(random.choice(piece.rows, size=count, replace=False).tolist())
        for place, read in enumerate(canonical_rows(piece)):
            if place in chosen:
                yield made(read, piece.path, self.target)


@dataclass(frozen=True)
class SplitJob:
    """Rows for `train` or `val`: those of one key, and so all questions whose first image is the same, are together."""

    target: Target
    seed: int
    share: float
    by: str

    @property
    def schema(self) -> pa.Schema:
        return SCHEMAS[self.target.kind]

    def __call__(self, piece: Piece) -> Iterator[Made | Fault]:
        for read in canonical_rows(piece):
            if read.row is None:
                yield Fault(read.number, read.fault)
                continue
            try:
                key = _key(read.row, self.by, f"{piece.path.stem}:{read.number}")
            except BadRow as fault:
                yield Fault(read.number, str(fault))
                continue
            side = VAL if _number(f"{self.seed}:{key}") < self.share * 2**64 else TRAIN
            yield made(read, piece.path, self.target, side)


def sample_counts(pieces: Sequence[Piece], count: int | None, seed: int) -> dict[tuple[str, int], int]:
    """Rows to draw from each piece, as a draw of `count` rows of all gives them. All where there are no more."""
    rows = np.array([piece.rows for piece in pieces])
    total = int(rows.sum())
    most = total if count is None else min(count, total)
    drawn = np.random.default_rng(seed).multivariate_hypergeometric(rows, most, method="marginals")
    return {(str(piece.path), piece.first_row): int(n) for piece, n in zip(pieces, drawn, strict=True)}


def made(read: ReadRow, file: Path, target: Target, output: str = "all") -> Made | Fault:
    """Row of an output, or the fault of the row."""
    if read.row is None:
        return Fault(read.number, read.fault)
    return Made(read.number, target.row(read, file), output)


def shared_stems(files: Sequence[Path]) -> tuple[str, ...]:
    """Names, without ending, that several files have, in order of the alphabet."""
    return tuple(sorted(stem for stem, count in Counter(file.stem for file in files).items() if count > 1))


def kind_of(files: Sequence[Path]) -> Kind:
    """Kind that all files have. Raises UserError where they differ or one is no record file."""
    kinds = {file: open_rows(file).columns.kind for file in files}
    if len(set(kinds.values())) > 1:
        listed = ", ".join(f"{file.name} holds {kind}" for file, kind in kinds.items())
        raise UserError(f"the files are of different kinds ({listed}); name files of one kind")
    return next(iter(kinds.values()))


def _key(row: CanonicalRow[Source], by: str, place: str) -> str:
    if by == "record" or (by == "image" and not row.sources):
        return place
    if by == "question":
        text = row.question or next(item.content for item in row.messages if item.role == "user")
        return " ".join(text.replace(IMAGE_PLACEHOLDER, " ").casefold().split())
    first = row.sources[0]
    return hashlib.sha256(first).hexdigest() if isinstance(first, bytes) else _digest(first)


@functools.lru_cache(maxsize=65_536)
def _digest(path: Path) -> str:
    """SHA-256 of an image file; one of a store is named after it. Raises BadRow where the file cannot be read."""
    if _STORED.fullmatch(path.stem) and path.parent.name == path.stem[:2]:
        return path.stem
    return hashlib.sha256(read_source(path, "images[0]")).hexdigest()


def _number(text: str) -> int:
    """Number from 0 to 2^64 that a text always gives."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
