"""PixmoCount, test split: photographs behind addresses, published with the SHA-256 of each file.

The published rows hold neither image nor question. Images are found in a local folder by their digest, whatever they
are called; the question is made of the label.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from codedance_verl.grading.rules import count
from codedance_verl.tasks.countbench import whole_number
from codedance_verl.tasks.counting import DEFINITION, score_count
from codedance_verl.tasks.figures import Figure, Mark, mean
from codedance_verl.tasks.item import Item
from codedance_verl.tasks.references import ImageFile, NoImage
from codedance_verl.tasks.rows import Row, converted, rows, table
from codedance_verl.tasks.task import Layout, Task

_NO_IMAGES = frozenset({".parquet", ".json", ".jsonl", ".tsv", ".csv", ".md", ".txt", ".lock", ".metadata"})

FOUND, MISSING = "found", "missing"


def match_by_sha256(folder: Path, wanted: Collection[str]) -> dict[str, Path]:
    """Files below a folder by the SHA-256 (hex) of their content, of those that are wanted.

    Files named after a wanted digest are read first, and none once all are found.
    """
    missing, found = set(wanted), dict[str, Path]()
    files = (path for path in folder.rglob("*") if path.suffix.lower() not in _NO_IMAGES and path.is_file())
    for path in sorted(files, key=lambda path: (path.stem.lower() not in missing, path)):
        if not missing:
            break
        digest = _sha256(path)
        if digest in missing:
            missing.remove(digest)
            found[digest] = path
    return found


def question_about(label: str) -> str:
    """Question that stands in no published row: how many of what the label names."""
    return f"How many {label} are there in the image?"


def _sha256(path: Path) -> str:
    """Digest of a file; empty where it cannot be read, which leaves its item without an image."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _matched(files: tuple[Path, ...]) -> Iterator[Item]:
    # of the rows only digests are held: the images stand in files of their own
    wanted = {row.optional("image_sha256").lower() for path in files for row in rows(path)} - {""}
    found = match_by_sha256(_folder_of(files), wanted)
    for path in files:
        for row in rows(path):
            yield converted(row, lambda row: _published(row, found))


def _folder_of(files: tuple[Path, ...]) -> Path:
    """Folder that holds the images: that of the files, or the one above where they lie in `data`, as on the hub."""
    folder = files[0].parent
    return folder.parent if folder.name == "data" else folder


def _published(row: Row, found: dict[str, Path]) -> Item:
    digest = row.text("image_sha256").lower()
    path = found.get(digest)
    reason = f"no file has the SHA-256 {digest} of {row.optional('image_url')}"
    return Item(
        id="",
        question=question_about(row.text("label").strip()),
        images=(ImageFile(path, row.where) if path is not None else NoImage(row.where, reason),),
        truth=whole_number(row, "count"),
        cluster=digest,
        style=count.RULE,
        strata={"image": FOUND if path is not None else MISSING},
    )


def _with_image(row: Row) -> Item:
    question = row.text("question").replace("<image>", "").strip()
    truth = whole_number(row, "answer")
    return Item("", question, (row.image(),), truth, style=count.RULE, strata={"image": FOUND})


def _figures(marks: Sequence[Mark]) -> tuple[Figure, ...]:
    # rows that are no item have no such stratum, and stay in
    found = [mark for mark in marks if mark.stratum("image") != MISSING]
    return (
        mean("accuracy", "mean over all items, those without an image being wrong", marks),
        mean("downloaded", "mean over the items whose image is there", found),
    )


PIXMOCOUNT = Task(
    name="pixmocount",
    title="PixmoCount test",
    source="allenai/pixmo-count",
    revision="59b2301",
    expected=540,
    layouts=(
        Layout(
            "parquet of allenai/pixmo-count with images in any folder beside it",
            # for `find` alone: `_matched` reads the rows
            table("", "**/test*.parquet", ("image_url", "image_sha256", "count", "label"), _with_image).find,
            _matched,
        ),
        table("parquet of kcz358/pixmo-count", "**/test*.parquet", ("image", "question", "answer"), _with_image),
        table("JSON lines with images beside them", "**/*.jsonl", ("image", "question", "answer"), _with_image),
    ),
    score=score_count,
    rule=DEFINITION,
    figures=_figures,
    hub_files=("**/test*.parquet",),
)

TASKS = (PIXMOCOUNT,)
