"""Files of a filter: one of records for each stratum, in the order of the files that were read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from codedance_verl.datasets.commands import progress_of
from codedance_verl.datasets.parts import Fault, Made, Tally, join_parts, parts_folder, write_parts
from codedance_verl.datasets.pieces import Piece, canonical_rows
from codedance_verl.datasets.select import Target
from codedance_verl.datasets.stored import SCHEMAS
from codedance_verl.filtering.rows import Chunk, row_id, unfit
from codedance_verl.filtering.rule import Stratum
from codedance_verl.filtering.strata import digest_of, read_strata, strata_file


@dataclass(frozen=True)
class StrataOf:
    """File with the strata of some pieces, by the paths and first rows of these; `digest` is of its content."""

    path: Path
    digest: str
    pieces: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class FilterJob:
    """Rows of a piece, each for the output of its stratum, with the evidence in `extra_info`."""

    target: Target
    strata: tuple[StrataOf, ...]

    @property
    def schema(self) -> pa.Schema:
        return SCHEMAS[self.target.kind]

    def __call__(self, piece: Piece) -> Iterator[Made | Fault]:
        file = next(of for of in self.strata if (str(piece.path), piece.first_row) in of.pieces)
        strata = read_strata(file.path, file.digest)
        for read in canonical_rows(piece):
            fault = read.fault if read.row is None else unfit(read.row)
            if read.row is None or fault:
                yield Fault(read.number, fault)
                continue
            found = strata.get(row_id(piece.path, read.number, read.row))
            if found is None:
                yield Fault(read.number, "it has changed since it was sampled; run the filter again")
                continue
            stratum, evidence = found
            item = Made(read.number, self.target.row(read, piece.path))
            extra = {**item.row["extra_info"], "difficulty": stratum, "evidence": evidence}
            yield Made(item.number, {**item.row, "extra_info": extra}, stratum)


def write_outputs(
    out: Path, target: Target, chunks: Sequence[Chunk], workers: int, skip_bad: bool
) -> Mapping[Stratum, Path]:
    """Writes `<stratum>.parquet` for each stratum that has records, and removes that of one that has none now.

    Raises UserError: the disk fails.
    """
    strata = tuple(_strata_of(out, chunk) for chunk in chunks)
    job, pieces = FilterJob(target, strata), tuple(piece for chunk in chunks for piece in chunk.pieces)
    files = list(dict.fromkeys(piece.path for piece in pieces))
    with parts_folder(out / "filter", job, pieces) as folder:
        tally: Tally = write_parts(job, pieces, folder, workers, skip_bad, progress_of(files))
        made_of: dict[Stratum, Path] = {}
        for stratum in Stratum:
            path = file_of(out, stratum)
            if tally.made[stratum.value]:
                join_parts(folder, stratum.value, path, job.schema)
                made_of[stratum] = path
            else:
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()
    return made_of


def file_of(out: Path, stratum: Stratum) -> Path:
    """File of the records of a stratum."""
    return out / f"{stratum.value}.parquet"


def _strata_of(out: Path, chunk: Chunk) -> StrataOf:
    path = strata_file(out, chunk).absolute()
    pieces = tuple((str(piece.path), piece.first_row) for piece in chunk.pieces)
    return StrataOf(path, digest_of(path.read_bytes()), pieces)
