"""Conversion of a published file: rows through a converter and the reader of training, images into the store."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from codedance_verl.data.checking import fault_of_images
from codedance_verl.data.fields import BadRow, Message, Source
from codedance_verl.data.parquet import batches, open_parquet
from codedance_verl.data.rows import CanonicalRow, Columns, Kind, canonical_row
from codedance_verl.datasets.converter import Converter, Form, MissingImage
from codedance_verl.datasets.converters import CONVERTERS
from codedance_verl.datasets.image_store import ImageStore
from codedance_verl.datasets.parts import Fault, Made
from codedance_verl.datasets.pieces import Piece, raw_rows
from codedance_verl.datasets.stored import SCHEMAS, image_paths, stored_row
from codedance_verl.environment.system_prompt import instructions
from codedance_verl.formats import get_format
from codedance_verl.runtime.atomic import write_atomically
from codedance_verl.tasks.pixmocount import match_by_sha256

_DIGEST = "sha256"


@dataclass(frozen=True)
class Matches:
    """Local files by SHA-256, in a JSON file that worker processes read; `key` is the digest of its content."""

    path: Path
    key: str


@dataclass(frozen=True)
class ConvertJob:
    """Conversion of pieces of one file.

    Attributes:
        converter, form: by their names.
        out: file that the records will stand in.
        images: folder of the image store.
        format: name of the turn format whose instructions become the system message of records without one; empty
            where the environment adds them.
        matches: files of images that rows name by digest.
    """

    converter: str
    form: str
    out: Path
    images: Path
    format: str = ""
    matches: Matches | None = None

    @property
    def schema(self) -> pa.Schema:
        return SCHEMAS[CONVERTERS[self.converter].kind]

    def __call__(self, piece: Piece) -> Iterator[Made | Fault]:
        converter = CONVERTERS[self.converter]
        form = next(form for form in converter.forms if form.name == self.form)
        for number, raw in raw_rows(piece, form.columns):
            try:
                if isinstance(raw, BadRow):
                    raise raw
                yield Made(number, self._converted(raw, number, piece.path, converter, form))
            except MissingImage as missing:
                yield Fault(number, str(missing), str(missing))
            except BadRow as fault:
                yield Fault(number, str(fault))

    def _converted(
        self, raw: Mapping[str, Any], number: int, file: Path, converter: Converter, form: Form
    ) -> dict[str, Any]:
        record = dict(form.record(raw))
        if self.matches is not None:
            record["images"] = [_matched(image, self.matches) for image in record["images"]]
        prompt = "prompt" if converter.kind is Kind.QUESTIONS else "messages"
        row = canonical_row(record, Columns(converter.kind, prompt, "images"), file.parent)
        if fault := fault_of_images(row):
            raise BadRow(fault)
        row = self._with_system_message(row)
        images = image_paths(row.sources, ImageStore(self.images), self.out, copy_files=True)
        stored = stored_row(row, images, "", converter.kind)
        # ids of published files repeat, and the same id would count as the same question
        name = f"{converter.name}/{file.stem}:{number}"
        (stored["extra_info"] if converter.kind is Kind.QUESTIONS else stored)["record_id"] = name
        return stored

    def _with_system_message(self, row: CanonicalRow[Source]) -> CanonicalRow[Source]:
        if not self.format or any(message.role == "system" for message in row.messages):
            return row
        text = instructions(get_format(self.format), len(row.sources))
        return replace(row, messages=(Message("system", text), *row.messages))


def match_images(files: Sequence[Path], column: str, folder: Path, target: Path) -> Matches:
    """Finds the images that a column names by digest below a folder, and writes them to `target`."""
    wanted = {
        value.lower()
        for file in files
        for batch in batches(file, open_parquet(file), [column])
        for value in batch.column(0).to_pylist()
        if isinstance(value, str)
    }
    found = {digest: str(path.absolute()) for digest, path in sorted(match_by_sha256(folder, wanted).items())}
    text = json.dumps(found)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, text)
    return Matches(target, hashlib.sha256(text.encode()).hexdigest()[:16])


@functools.lru_cache(maxsize=2)
def _paths(matches: Matches) -> Mapping[str, str]:
    found: Mapping[str, str] = json.loads(matches.path.read_bytes())
    return found


def _matched(image: Any, matches: Matches) -> str:
    """File of an image that a row names by digest. Raises MissingImage."""
    digest = str(image[_DIGEST])
    path = _paths(matches).get(digest)
    if path is None:
        raise MissingImage(f"{digest}\t{image.get('url') or ''}")
    return path
