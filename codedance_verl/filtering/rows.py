"""Questions of record files as a filter asks them: chunks of rows, names that follow the content, items of samples."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from codedance_verl import images
from codedance_verl.data.conditions import Condition
from codedance_verl.data.fields import BadRow, Source, read_source
from codedance_verl.data.reading import fault_line
from codedance_verl.data.rows import CanonicalRow
from codedance_verl.datasets.parts import stop_line
from codedance_verl.datasets.pieces import Piece, canonical_rows
from codedance_verl.environment.resized_images import LEAST_SIDE, resized_size
from codedance_verl.errors import UserError
from codedance_verl.grading.matchers import ASKS_JUDGE
from codedance_verl.harness.at_once import direct_item
from codedance_verl.tasks.item import Item, UnreadableImage
from codedance_verl.types import IMAGE_PLACEHOLDER

CHUNK_ROWS = 8_192
"""Rows of a chunk, but for a single larger piece: what is known of a chunk's samples is in memory."""

_DIGEST = re.compile("[0-9a-f]{64}")
_MEASURED_ROWS = 1_000
"""Rows whose images are looked at for an estimate."""


@dataclass(frozen=True)
class Chunk:
    """Neighbouring pieces of the files, which are sampled together; the name is that of its folder."""

    name: str
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Row:
    """Good row of a file. `id` has the name of the file, the number of the row and a digest of what is asked."""

    id: str
    number: int
    row: CanonicalRow[Source]


@dataclass(frozen=True)
class SourceImage:
    """Image of a row: the encoded file, or its path."""

    source: Source
    where: str

    def fault(self) -> str:
        return ""

    def read(self) -> bytes:
        try:
            return read_source(self.source, self.where)
        except BadRow as error:
            raise UnreadableImage(str(error)) from None


@dataclass(frozen=True)
class Survey:
    """Measures of the rows before anything is asked.

    Attributes:
        rows: good rows.
        lines: bad rows, the first of them.
        bad: number of bad rows.
        question_chars: of all questions.
        image_tokens: of an average question's images, at 28 x 28 pixels a token; of the first rows.
        open_answers: rows whose style asks a judge where the rules do not decide.
    """

    rows: int
    lines: tuple[str, ...]
    bad: int
    question_chars: int
    image_tokens: float
    open_answers: int = 0


def chunks_of(pieces: Sequence[Piece]) -> tuple[Chunk, ...]:
    """Chunks of the pieces, in order, each of one file: what is on record holds whatever files stand beside it."""
    found: list[Chunk] = []
    held: list[Piece] = []
    for piece in pieces:
        if held and (held[0].path != piece.path or sum(one.rows for one in held) + piece.rows > CHUNK_ROWS):
            found.append(_chunk(held))
            held = []
        held.append(piece)
    return (*found, *([_chunk(held)] if held else ()))


def rows_of(chunk: Chunk) -> Iterator[Row]:
    """Good rows of a chunk, one by one; images that stand in the file are in memory with their row."""
    for piece in chunk.pieces:
        for read in canonical_rows(piece):
            if read.row is not None and not unfit(read.row):
                yield Row(row_id(piece.path, read.number, read.row), read.number, read.row)


def row_id(path: Path, number: int, row: CanonicalRow[Source]) -> str:
    """Name of a row, another one where messages, truth, style or images change."""
    texts = [[message.role, message.content] for message in row.messages]
    asked = [texts, row.ground_truth, row.style, row.data_source, [_image_name(source) for source in row.sources]]
    digest = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]
    return f"{path.stem}:{number}@{digest}"


def item_of(row: Row, sample: int, plain: bool = False) -> Item:
    """Item of one sample of a row; `facts` has the number of the sample.

    A plain one asks for an answer in tags, and is without the record's system message, which describes tools.
    """
    found = row.row
    texts = [message.content for message in found.messages if message.role == "user"]
    where = f"row {row.number}"
    item = Item(
        id=f"{row.id}#{sample}",
        question=texts[-1].replace(IMAGE_PLACEHOLDER, "").strip(),
        images=tuple(SourceImage(source, where) for source in found.sources),
        truth=found.ground_truth,
        style=found.style,
        graded_question=found.question,
        system="\n".join(message.content for message in found.messages if message.role == "system"),
        facts={"sample": sample},
    )
    return direct_item(replace(item, system="")) if plain else item


def survey(pieces: Sequence[Piece], max_pixels: int, skip_bad: bool) -> Survey:
    """Reads all rows once.

    Raises UserError: a row is bad and `skip_bad` is not set, or is one of an evaluation under a control.
    """
    found, lines, measured, tokens = Survey(0, (), 0, 0, 0.0), list[str](), 0, 0
    for piece in pieces:
        for read in canonical_rows(piece):
            fault = read.fault if read.row is None else unfit(read.row)
            if fault and not skip_bad:
                raise UserError(stop_line(piece.path, read.number, fault))
            if read.row is None or fault:
                lines += [fault_line(piece.path, read.number, fault)] if len(lines) < 20 else []
                found = replace(found, bad=found.bad + 1)
                continue
            if measured < _MEASURED_ROWS:
                measured, tokens = measured + 1, tokens + _tokens(read.row, max_pixels)
            found = replace(
                found,
                rows=found.rows + 1,
                question_chars=found.question_chars + len(read.row.question),
                open_answers=found.open_answers + (read.row.style in ASKS_JUDGE),
            )
    return replace(found, lines=tuple(lines), image_tokens=tokens / measured if measured else 0.0)


def unfit(row: CanonicalRow[Source]) -> str:
    """Reason for which a good row is not asked; empty for none."""
    control = Condition.of(row.extra_info).control
    if control is not None:
        return f"it is a question under a control ({control}), which are for evaluations"
    asked = [message for message in row.messages if message.role != "system"]
    if len(asked) > 1:
        return f"its prompt is a conversation of {len(asked)} messages; a filter asks single questions"
    # a model would get all of them in front
    if IMAGE_PLACEHOLDER in _behind_images(asked[0].content):
        return "its prompt has an image behind text; a filter asks questions with their images in front"
    return ""


def _behind_images(text: str) -> str:
    while (text := text.lstrip()).startswith(IMAGE_PLACEHOLDER):
        text = text.removeprefix(IMAGE_PLACEHOLDER)
    return text


def _chunk(pieces: Sequence[Piece]) -> Chunk:
    return Chunk(f"{pieces[0].path.stem}-{pieces[0].first_row}", tuple(pieces))


def _image_name(source: Source) -> str:
    """Digest of an image; of a file in an image store its name."""
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    if _DIGEST.fullmatch(source.stem):
        return source.name
    try:
        with source.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:  # asking it will put the fault on record
        return source.name


def _tokens(row: CanonicalRow[Source], max_pixels: int) -> int:
    found = 0
    for source in row.sources:
        try:
            width, height = resized_size(*images.shown_size(read_source(source, "")), max_pixels)
        except Exception:  # decoders of damaged files raise anything; asking it will put the fault on record
            continue
        found += width * height // LEAST_SIDE**2
    return found
