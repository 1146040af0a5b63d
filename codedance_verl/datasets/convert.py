"""Conversion of a published file: rows through a converter and the reader of training, images into the store."""

from __future__ import annotations

import functools
import hashlib
import json
import os
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
from codedance_verl.datasets.pieces import JSON, Piece, raw_rows
from codedance_verl.datasets.stored import SCHEMAS, image_paths, stored_row
from codedance_verl.environment.system_prompt import instructions
from codedance_verl.errors import UserError
from codedance_verl.formats import get_format
from codedance_verl.runtime.atomic import write_atomically
from codedance_verl.tasks.pixmocount import match_by_sha256

_DIGEST = "sha256"


@dataclass(frozen=True)
class Matches:
    """Local files by SHA-256, as JSON text; empty where rows name no images by digest."""

    text: str = ""

    @property
    def key(self) -> str:
        """Digest of the text; empty where it is."""
        return hashlib.sha256(self.text.encode()).hexdigest() if self.text else ""


@dataclass(frozen=True)
class ConvertJob:
    """Conversion of pieces of one file.

    Attributes:
        converter, form: by their names.
        out: file that the records will stand in.
        images: folder of the image store.
        format: name of the turn format whose instructions become the system message of records without one; empty
            where the environment adds them.
        matches_key: key of the files of images that rows name by digest; empty where rows have their images.
        matches: file of these matches, which worker processes read.
        image_folder: folder that images may lie in beside that of the file; None for no other.
        any_path: whether they may lie anywhere.
    """

    converter: str
    form: str
    out: Path
    images: Path
    format: str = ""
    matches_key: str = ""
    matches: Path | None = None
    image_folder: Path | None = None
    any_path: bool = False

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
        record = dict(form.record(raw, file.suffix.lower() not in JSON))
        if self.matches is not None:
            record["images"] = [_matched(image, self.matches, self.matches_key) for image in record["images"]]
        prompt = "prompt" if converter.kind is Kind.QUESTIONS else "messages"
        row = canonical_row(record, Columns(converter.kind, prompt, "images"), file.parent)
        if not self.any_path and self.matches is None:
            row = replace(row, sources=self._within(row.sources, file))
        if fault := fault_of_images(row):
            raise BadRow(fault)
        row = self._with_system_message(row)
        images = image_paths(row.sources, ImageStore(self.images), self.out, copy_files=True)
        stored = stored_row(row, images, "", converter.kind)
        # ids of published files repeat, and the same id would count as the same question
        name = f"{converter.name}/{file.stem}:{number}"
        (stored["extra_info"] if converter.kind is Kind.QUESTIONS else stored)["record_id"] = name
        return stored

    def _within(self, sources: Sequence[Source], file: Path) -> tuple[Source, ...]:
        """Images, of which those in files lie where a published set may have them. Raises BadRow where one does not.

        A path goes into the store with what it names, and a published file may name any that its user can read.
        """
        folders = [Path(os.path.normpath(folder.absolute())) for folder in (file.parent, self.image_folder) if folder]
        found = list[Source]()
        for index, source in enumerate(sources):
            if not isinstance(source, bytes):
                source = Path(os.path.normpath(source))  # also for reading: a link in front of `..` leads elsewhere
                if not any(source.is_relative_to(folder) for folder in folders):
                    raise BadRow(
                        f"images[{index}] names {source}, which is outside the folder of the file; name its folder "
                        "with --image-folder, or allow all with --any-path"
                    )
            found.append(source)
        return tuple(found)

    def _with_system_message(self, row: CanonicalRow[Source]) -> CanonicalRow[Source]:
        if not self.format or any(message.role == "system" for message in row.messages):
            return row
        text = instructions(get_format(self.format), len(row.sources))
        return replace(row, messages=(Message("system", text), *row.messages))


def match_images(files: Sequence[Path], column: str, folder: Path) -> Matches:
    """Finds the images that a column names by digest below a folder."""
    wanted = {
        value.lower()
        for file in files
        for batch in batches(file, open_parquet(file), [column])
        for value in batch.column(0).to_pylist()
        if isinstance(value, str)
    }
    found = {digest: str(path.absolute()) for digest, path in sorted(match_by_sha256(folder, wanted).items())}
    return Matches(json.dumps(found))


def matching(job: ConvertJob, matches: Matches, folder: Path) -> ConvertJob:
    """Job whose matches stand in the folder of its parts. Raises OSError."""
    if not matches.text:
        return job
    path = folder / "matched.json"
    write_atomically(path, matches.text)
    return replace(job, matches=path.absolute())


@functools.lru_cache(maxsize=2)
def _paths(path: Path, key: str) -> Mapping[str, str]:
    text = path.read_text()
    if Matches(text).key != key:
        raise UserError(f"{path} is not what this run wrote there; start the command again")
    found: Mapping[str, str] = json.loads(text)
    return found


def _matched(image: Any, matches: Path, key: str) -> str:
    """File of an image that a row names by digest. Raises MissingImage."""
    digest = str(image[_DIGEST])
    path = _paths(matches, key).get(digest)
    if path is None:
        raise MissingImage(f"{digest}\t{image.get('url') or ''}")
    return path
