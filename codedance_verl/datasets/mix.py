"""Mixtures of record files: weights, a total, and an order that is shuffled or goes from stratum to stratum.

The order is planned with one number a record. Records then go through buckets on disk that each hold a stretch of the
output, so that memory does not grow with the mixture.
"""

from __future__ import annotations

import functools
import hashlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from codedance_verl.data.parquet import BATCH_ROWS, GroupWriter, batches, open_parquet
from codedance_verl.datasets.parts import Fault, Made, part_rows
from codedance_verl.datasets.pieces import Piece, canonical_rows
from codedance_verl.datasets.select import Target, made
from codedance_verl.datasets.stored import SCHEMAS
from codedance_verl.errors import UserError
from codedance_verl.runtime.atomic import replacing

PLACE = "place"
"""Column of the parts: number of the record in the output."""

BUCKET_BYTES, MOST_BUCKET_ROWS, MOST_BUCKETS = 32 << 20, 16_384, 400
_LEAST_ROW_BYTES = 1 << 10  # a text that a file stores once for many rows is small there only

Numbers = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Share:
    """File with its weight, or all of it once where the weight is None."""

    path: Path
    weight: float | None = None


@dataclass(frozen=True)
class MixJob:
    """Rows of a piece, each for every place that the plan has for it.

    `plan_key` is the key of the plan, `plan` its file, which worker processes read.
    """

    target: Target
    plan_key: str
    files: tuple[str, ...]
    bucket_rows: int
    plan: Path | None = None

    @property
    def schema(self) -> pa.Schema:
        return SCHEMAS[self.target.kind].append(pa.field(PLACE, pa.int64()))

    def __call__(self, piece: Piece) -> Iterator[Made | Fault]:
        assert self.plan is not None
        plan = _stored_plan(self.plan, self.plan_key)  # rows of file, row, place; sorted by file and row
        start, end = np.searchsorted(plan[0], [(k := self.files.index(str(piece.path))), k + 1])
        rows, places = plan[1, start:end], plan[2, start:end]
        for row, read in enumerate(canonical_rows(piece), piece.first_row):
            low, high = np.searchsorted(rows, [row, row + 1])
            for place in places[low:high].tolist():
                item = made(read, piece.path, self.target, f"b{place // self.bucket_rows:05d}")
                yield Made(item.number, {**item.row, PLACE: place}, item.output) if isinstance(item, Made) else item
                if isinstance(item, Fault):
                    break


def plan_mixture(shares: Sequence[Share], total: int | None, curriculum: Sequence[str], seed: int) -> Numbers:
    """Plan of a mixture: an array [3, records] of file, row and place, sorted by file and row.

    Each file gives its weight's share of `total`; a file that has fewer rows gives each of them as often as it must,
    no row twice more often than another. Without `total` no row is given twice: the file that is shortest for its
    weight sets it. With a curriculum, records go by stratum in that order, shuffled within each.

    Raises UserError: weights are not positive, some files have one and others none, or a stratum is unknown.
    """
    rows = [open_parquet(share.path).metadata.num_rows for share in shares]
    for share, count in zip(shares, rows, strict=True):
        if not count:
            raise UserError(f"{share.path} holds no row; leave it out, or make or download it again")
    counts = _counts(shares, rows, total)
    random = np.random.default_rng(seed)
    drawn = [_draw(random, n, count) for n, count in zip(rows, counts, strict=True)]
    order = random.permutation(sum(counts))
    if curriculum:
        # two bytes a record: a mixture of many millions is planned in the memory of one process
        ranks = np.concatenate(
            [_strata(share.path, curriculum)[part] for share, part in zip(shares, drawn, strict=True)]
        )
        order = order[np.argsort(ranks[order], kind="stable")]
        del ranks
    places = np.empty(len(order), np.int64)
    places[order] = np.arange(len(order))
    del order
    plan = np.empty((3, len(places)), np.int64)
    start = 0
    for file, chosen in enumerate(drawn):  # sorted file by file, so that only one has its indices in memory
        span = slice(start, start := start + len(chosen))
        by_row = np.lexsort((places[span], chosen))
        plan[0, span], plan[1, span], plan[2, span] = file, chosen[by_row], places[span][by_row]
    return plan


def plan_key(plan: Numbers) -> str:
    """Digest of a plan."""
    return hashlib.sha256(np.ascontiguousarray(plan).data).hexdigest()


def planned(job: MixJob, plan: Numbers, folder: Path) -> MixJob:
    """Job whose plan stands in the folder of its parts. Raises OSError."""
    path = (folder / "plan.npy").absolute()
    with replacing(path) as partial, partial.open("wb") as file:
        np.save(file, plan)
    return replace(job, plan=path)


@functools.lru_cache(maxsize=1)
def _stored_plan(path: Path, key: str) -> Numbers:
    plan: Numbers = np.load(path, mmap_mode="r")
    if plan_key(plan) != key:
        raise UserError(f"{path} is not the plan of this run; start the command again")
    return plan


def bucket_rows(shares: Sequence[Share], total: int) -> int:
    """Rows of a bucket that is held in memory while it is sorted."""
    text = rows = 0
    for share in shares:
        metadata = open_parquet(share.path).metadata
        rows += metadata.num_rows
        for group in range(metadata.num_row_groups):
            found = metadata.row_group(group)
            columns = (found.column(index) for index in range(found.num_columns))
            text += sum(
                item.total_uncompressed_size for item in columns if not item.path_in_schema.startswith("images")
            )
    fitting = BUCKET_BYTES // max(_LEAST_ROW_BYTES, text // max(1, rows))
    return max(1, min(MOST_BUCKET_ROWS, fitting), -(-total // MOST_BUCKETS))


def join_buckets(folder: Path, out: Path, schema: pa.Schema) -> None:
    """Writes the output in the order of the places from the parts of all buckets."""
    names = sorted({path.name.split(".")[1] for path in folder.glob("*.b*.parquet")})
    with GroupWriter(out, schema.remove(schema.get_field_index(PLACE))) as writer:
        for name in names:
            table = pa.Table.from_batches(part_rows(folder, name), schema).sort_by(PLACE).drop_columns([PLACE])
            for start in range(0, table.num_rows, BATCH_ROWS):
                writer.add(table.slice(start, BATCH_ROWS))


def parse_share(text: str) -> Share:
    """File and weight of `FILE` or `FILE=WEIGHT`. Raises UserError."""
    name, mark, weight = text.rpartition("=")
    if not mark or Path(text).is_file():
        return Share(Path(text))
    try:
        value = float(weight)
    except ValueError:
        raise UserError(f"{text}: {weight} is no weight; write FILE=2.5") from None
    if not 0 < value < float("inf"):
        raise UserError(f"{text}: a weight must be over 0; leave the file out instead")
    return Share(Path(name), value)


def _counts(shares: Sequence[Share], rows: Sequence[int], total: int | None) -> list[int]:
    weights = [share.weight for share in shares if share.weight is not None]
    if weights and len(weights) != len(shares):
        raise UserError("some files have a weight and others none; give each one or none, as FILE=WEIGHT")
    parts = np.array(weights or [float(count) for count in rows])
    parts = parts / parts.sum()
    if total is None:
        total = int(min(n / part for n, part in zip(rows, parts, strict=True)) + 1e-6) if weights else sum(rows)
    exact = parts * total
    counts = np.floor(exact + 1e-9).astype(np.int64)
    for index in np.argsort(counts - exact, kind="stable")[: total - int(counts.sum())]:  # the largest remainders
        counts[index] += 1
    return [int(count) for count in counts]


def _draw(random: np.random.Generator, rows: int, count: int) -> Numbers:
    whole = np.tile(np.arange(rows, dtype=np.int64), count // rows)
    return np.concatenate([whole, random.choice(rows, size=count % rows, replace=False).astype(np.int64)])


def _strata(path: Path, curriculum: Sequence[str]) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """Place in the curriculum of each row of a file, by its `difficulty`."""
    parquet = open_parquet(path)
    names = {parquet.schema.column(index).path for index in range(len(parquet.schema))}
    column = next((name for name in ("extra_info.difficulty", "difficulty") if name in names), None)
    if column is None:
        raise UserError(f"{path.name} has no extra_info.difficulty, by which a curriculum goes; leave --curriculum out")
    found = array("H")
    for batch in batches(path, parquet, [column]):
        for row in batch.to_pylist():
            value = (row.get("extra_info") or {}).get("difficulty") if "." in column else row.get(column)
            if value not in curriculum:
                raise UserError(
                    f"{path.name} row {len(found)}: its difficulty is {value!r}, and --curriculum has "
                    f"{','.join(curriculum)}; name every stratum"
                )
            found.append(curriculum.index(value))
    return np.frombuffer(found, np.uint16)
