"""Generated questions as record files: pieces of a range of numbers instead of pieces of a file."""

from __future__ import annotations

import functools
import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from codedance_verl import generators
from codedance_verl.data.checking import progress_line
from codedance_verl.datasets.image_store import ImageStore, reference
from codedance_verl.datasets.parts import Made, Tally, join_parts, parts_folder, write_parts
from codedance_verl.datasets.pieces import Piece
from codedance_verl.datasets.stored import QUESTION_SCHEMA
from codedance_verl.errors import UserError
from codedance_verl.generators.choices import Split
from codedance_verl.generators.dials import LEVELS, STRATA, parse_dials
from codedance_verl.generators.item import Item, Region
from codedance_verl.generators.kinds import VIEW_PIXELS, code_digest, draw_item, kinds_of, settings_text
from codedance_verl.grading.matchers import RULE
from codedance_verl.types import IMAGE_PLACEHOLDER

PIECE_ROWS = 500
"""Records of a piece: some seconds of work, which an ended run has to do again at most for each process."""

SPLITS = {"train": Split.TRAIN, "val": Split.VALIDATION, "test": Split.TEST}


@dataclass(frozen=True)
class Order:
    """What is to be generated.

    Attributes:
        kinds: in turn.
        levels: in turn, each once for all kinds.
        dials: `NAME=VALUE`, in place of those of the level.
        records: how many.
        seed: the same one gives the same records.
        split: `train`, `val` or `test`.
        view_pixels: pixels of an image that the model sees at most, by which `needs_code` goes.
    """

    kinds: tuple[str, ...]
    levels: tuple[int, ...] = (LEVELS[1],)
    dials: tuple[str, ...] = ()
    records: int = 1_000
    seed: int = 0
    split: str = "train"
    view_pixels: int = VIEW_PIXELS

    @functools.cached_property
    def settings(self) -> Mapping[tuple[str, int], dict[str, int]]:
        """Dials of each kind and level. Raises UserError where one is unknown or out of range."""
        kinds = kinds_of(self.kinds)
        own = parse_dials(self.dials, kinds)
        return {(kind.name, level): kind.settings(level, own) for kind in kinds for level in self.levels}


@dataclass(frozen=True)
class GenerateJob:
    """Records of a range of numbers, stored for the file `out` with their images in the folder `images`."""

    order: Order
    out: Path
    images: Path
    code: str

    @property
    def schema(self) -> pa.Schema:
        return QUESTION_SCHEMA

    def __call__(self, piece: Piece) -> Iterator[Made]:
        store = ImageStore(self.images)
        for number in range(piece.first_row, piece.first_row + piece.rows):
            yield Made(number, self._row(number, store))

    def _row(self, number: int, store: ImageStore) -> dict[str, Any]:
        order = self.order
        # by number alone: any process can make any piece
        turn, place = divmod(number, len(order.kinds))
        kind, level = order.kinds[place], order.levels[turn % len(order.levels)]
        dials = order.settings[kind, level]
        item = draw_item(kind, dials, order.seed, SPLITS[order.split], number, order.view_pixels)
        images = [reference(store.put(_png(image)), self.out) for image in item.images]
        # of the dials, not of the level: with other dials the same number is another question
        name = f"{kind}-{order.split}-{_short(dials)}-{order.seed}-{number:07d}"
        return {
            "data_source": f"codedance_generated/{kind}",
            "prompt": [{"role": "user", "content": IMAGE_PLACEHOLDER * len(images) + item.question}],
            "images": images,
            "ability": kind,
            "reward_model": {"style": RULE, "ground_truth": item.answer},
            "extra_info": {
                "split": order.split,
                "index": number,
                "record_id": name,
                "question": item.question,
                "answer": item.answer,
                "need_tools_kwargs": False,
                "kind": kind,
                "difficulty": STRATA[LEVELS.index(level)],
                # readers of regions know one image, and take them for all of the evidence; `other` has those of all
                "regions": [_box(region) for region in item.regions] if len(item.images) == 1 else [],
                "points": [{"label": point.label, "x": point.x, "y": point.y} for point in item.points],
                "other": json.dumps(_facts(item, level, dials)),
            },
        }


def generate(order: Order, out: Path, images: Path | None, workers: int) -> Tally:
    """Generates a file of records; an ended run is resumed by the same call.

    Args:
        order: what is generated.
        out: parquet file, which appears whole or not at all.
        images: folder of the image store; None for `images` beside the file.
        workers: processes.

    Raises:
        UserError: a kind, level, dial or split is unknown, dials ask too much, or the disk fails.
    """
    if order.split not in SPLITS:
        raise UserError(f"--split is {order.split}; choose from {', '.join(SPLITS)}")
    assert order.settings  # refuses wrong dials before a folder is made
    store = (images or out.parent / "images").absolute()
    job = GenerateJob(order, out.absolute(), store, code_digest())
    pieces = _pieces(order.records)
    with parts_folder(out, job, pieces) as folder:
        tally = write_parts(job, pieces, folder, workers, progress=progress_line(out.name))
        join_parts(folder, "all", out, job.schema)
    return tally


def _pieces(records: int) -> Sequence[Piece]:
    """Ranges of numbers. Their path only stands for a file to read: that of the generators."""
    path = Path(generators.__file__)
    starts = range(0, records, PIECE_ROWS)
    return [Piece(path, (), start, min(PIECE_ROWS, records - start)) for start in starts]


def _facts(item: Item, level: int, dials: Mapping[str, int]) -> dict[str, Any]:
    """What a record says beside the published keys."""
    return {
        "level": level,
        "dials": dict(dials),
        "needs_code": item.needs_code,
        "measures": dict(item.measures),
        "evidence": [{"image": region.image, **_box(region)} for region in item.regions],
    }


def _box(region: Region) -> dict[str, Any]:
    return {"label": region.label, **dict(zip(("x1", "y1", "x2", "y2"), map(float, region.box), strict=True))}


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)  # files hold very many: time counts, size less
    return buffer.getvalue()


def _short(dials: Mapping[str, int]) -> str:
    return hashlib.sha256(settings_text(dials).encode()).hexdigest()[:8]
