"""Recall, precision and time of `codedance data audit` on planted copies.

`python -m benchmarks.audit --out FOLDER` makes distinct images of three kinds (`audit_images.py`) and copies of some of
them, writes both as files of records, compares them as the command does, and writes `audit.json`. Training files hold
the copies and all distinct images, evaluation files all distinct images: a pair that was made of one image is right,
any other is wrong. Times are CPU seconds of the process, as other work on the machine does not change them much.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.audit_images import EDITS, KINDS, copies, encoded
from codedance_verl.audit.comparison import Compared, compare
from codedance_verl.audit.evaluation_items import Against
from codedance_verl.audit.hash_search import near_pairs
from codedance_verl.audit.image_store import Small
from codedance_verl.audit.thumbnails import hashes_of, view_hashes
from codedance_verl.data.fields import Message
from codedance_verl.data.schema import Record, write_records

TRAINING_IMAGES, EVALUATION_IMAGES = 100_000, 16_000
_MEASURED_TRAINING = 5_000
_HASHED = 40  # images whose hashing is timed
_LARGE = (1280, 960)


@dataclass(frozen=True)
class KindResult:
    """Result for one kind of images.

    Attributes:
        distinct, planted: distinct images, and copies of each edit.
        found: copies that were found, by edit.
        unedited: distinct images that were found to be in both files.
        wrong: pairs reported of images that were not made of one.
        candidates: pairs whose pixels were compared.
        cpu_seconds: of the whole comparison.
    """

    kind: str
    distinct: int
    planted: int
    found: dict[str, int]
    unedited: int
    wrong: int
    wrong_pairs: tuple[tuple[int, int, float], ...]
    candidates: int
    cpu_seconds: float

    @property
    def reported(self) -> int:
        return sum(self.found.values()) + self.unedited + self.wrong


def measure_kind(kind: str, distinct: int, planted: int, folder: Path) -> KindResult:
    """Compares a file with planted copies of one kind with a file of the originals."""
    originals = KINDS[kind](distinct, 0)
    distinct = len(originals)
    evaluation, training = folder / f"{kind}_evaluation.parquet", folder / f"{kind}_training.parquet"
    unedited = [encoded(image, 95) for image in originals]
    write_records(evaluation, _records(unedited))
    planted_images = [data for _, _, data in copies(originals[:planted], 1)]
    write_records(training, _records([*planted_images, *unedited]))
    del originals
    started = time.process_time()
    compared = compare([training], [Against(kind, evaluation)])
    return _result(kind, distinct, planted, compared, time.process_time() - started)


def _records(images: Iterable[bytes]) -> Iterable[Record]:
    for number, data in enumerate(images):
        message = Message("user", f"<image>Describe image {number}.")
        yield Record("audit", (message,), (data,), "", "x", {"index": number})


def _result(kind: str, distinct: int, planted: int, compared: Compared, seconds: float) -> KindResult:
    found: Counter[str] = Counter()
    unedited, wrong, edits = 0, [], list(EDITS)
    for copy in compared.copies:
        edit, number = divmod(copy.training_image, planted)
        original = number if edit < len(edits) else copy.training_image - planted * len(edits)
        if original != copy.evaluation_image:
            wrong.append((copy.evaluation_image, copy.training_image, round(copy.score, 3)))
        elif edit < len(edits):
            found[edits[edit]] += 1
        else:
            unedited += 1
    by_edit = {name: found[name] for name in edits}
    shown = tuple(wrong[:20])
    return KindResult(
        kind, distinct, planted, by_edit, unedited, len(wrong), shown, compared.candidates, round(seconds, 1)
    )


def measure_time(training: int) -> dict[str, float]:
    """CPU seconds of hashing and search; those for `TRAINING_IMAGES` in proportion to what was measured."""
    draws = np.random.default_rng(0)
    coarse = draws.integers(0, 256, (_HASHED, 12, 16, 3), np.uint8)
    images = [encoded(Image.fromarray(pixels).resize(_LARGE, Image.Resampling.BICUBIC)) for pixels in coarse]
    started = time.process_time()
    thumbs = [Small.of(data).thumbnail() for data in images]
    for thumb in thumbs:
        hashes_of(thumb)
    one_training = (time.process_time() - started) / _HASHED
    started = time.process_time()
    for thumb in thumbs:
        view_hashes(thumb)
    one_evaluation = one_training + (time.process_time() - started) / _HASHED
    views = draws.integers(0, 2**63, (EVALUATION_IMAGES, 8), np.uint64)
    hashes = draws.integers(0, 2**63, (training, 2), np.uint64)
    started = time.process_time()
    candidates = sum(len(near) for _, near in near_pairs(views, hashes))
    search = time.process_time() - started
    return {
        "training_hash_ms": 1e3 * one_training,
        "evaluation_hash_ms": 1e3 * one_evaluation,
        "searched_training_images": training,
        "search_s": search,
        "random_candidates": candidates,
        "search_s_in_proportion": search * TRAINING_IMAGES / training,
        "hashing_s_in_proportion": one_training * TRAINING_IMAGES + one_evaluation * EVALUATION_IMAGES,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for files and audit.json")
    parser.add_argument("--distinct", type=int, default=2_000, help="distinct images of each kind")
    parser.add_argument("--planted", type=int, default=200, help="copies by each edit")
    parser.add_argument("--kinds", nargs="*", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--full-search", action="store_true", help="search all 100,000 hashes instead of 5,000")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    results = []
    for kind in arguments.kinds:
        result = measure_kind(kind, arguments.distinct, arguments.planted, arguments.out)
        results.append({**asdict(result), "reported": result.reported})
        print(json.dumps(results[-1]), flush=True)
    times = measure_time(TRAINING_IMAGES if arguments.full_search else _MEASURED_TRAINING)
    print(json.dumps(times))
    (arguments.out / "audit.json").write_text(json.dumps({"kinds": results, "time": times}, indent=1))


if __name__ == "__main__":
    main()
