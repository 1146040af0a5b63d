"""Records of RL questions and of demonstrations: reading with strict checks, and writing in the published form.

What a row of any other writer means is decided in `rows.py`. Ours adds `record_id`, `kind`, `difficulty` and, for
evaluation, `variant`, `control` and `temperature` (`conditions.py`) to the published `extra_info`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from codedance_verl import images
from codedance_verl.data.checking import inspect_image
from codedance_verl.data.fields import BadRow, Message, Source, read_source
from codedance_verl.data.parquet import write_rows
from codedance_verl.data.reading import fault_line, open_rows, refusal
from codedance_verl.data.rows import DEFAULT_KEYS, CanonicalRow, Keys, Kind
from codedance_verl.grading.matchers import RULE
from codedance_verl.types import question_of, stated_record_id

_MESSAGE = pa.struct({"role": pa.string(), "content": pa.string()})
_IMAGE = pa.struct({"bytes": pa.binary()})

# Columns that `write_records` stores.
RECORD_SCHEMA = pa.schema(
    {
        "data_source": pa.string(),
        "prompt": pa.list_(_MESSAGE),
        "images": pa.list_(_IMAGE),
        "ability": pa.string(),
        "reward_model": pa.struct({"style": pa.string(), "ground_truth": pa.string()}),
        "extra_info": pa.struct(
            {
                "split": pa.string(),
                "index": pa.int64(),
                **dict.fromkeys(("record_id", "question", "answer"), pa.string()),
                "need_tools_kwargs": pa.bool_(),
                **dict.fromkeys(("kind", "difficulty", "variant", "control"), pa.string()),
                "temperature": pa.float64(),
            }
        ),
    }
)

# Demonstrations; the last four columns are for people.
SFT_SCHEMA = pa.schema(
    {
        "messages": pa.list_(_MESSAGE),
        "images": pa.list_(_IMAGE),
        **dict.fromkeys(("record_id", "kind", "difficulty", "style"), pa.string()),
    }
)


@dataclass(frozen=True)
class Record:
    """One RL question. `images` are encoded files (PNG or JPEG bytes), one per `<image>` in the prompt, in order."""

    data_source: str
    prompt: tuple[Message, ...]
    images: tuple[bytes, ...]
    ability: str
    ground_truth: str
    extra_info: Mapping[str, Any] = field(default_factory=dict)
    style: str = RULE

    @property
    def question(self) -> str:
        """The question as stored, or the last user message without its image placeholders."""
        return question_of(self.extra_info, ((message.role, message.content) for message in self.prompt))

    @property
    def record_id(self) -> str:
        """The name that the record states; empty where it has neither `record_id` nor `index`."""
        return stated_record_id(self.data_source, self.extra_info)

    def load_images(self) -> tuple[Image.Image, ...]:
        """Images as model and code see them: decoded, upright, RGB."""
        return tuple(images.decode(data) for data in self.images)


@dataclass(frozen=True)
class Dataset:
    """Good records of a file, and one line for every row that was left out because skipping was asked for."""

    records: tuple[Record, ...]
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prompt:
    """Prompt of a row: its number, its messages, and width and height of its images, in order."""

    row: int
    messages: tuple[Message, ...]
    sizes: tuple[tuple[int, int], ...]


def read_records(path: str | Path, skip_bad_records: bool = False, keys: Keys = DEFAULT_KEYS) -> Dataset:
    """Reads and checks every row of a file of questions, images included; all of them are held in memory.

    Raises UserError naming file, row, fault and cure at the first bad row, unless `skip_bad_records`; then bad rows
    are left out and listed.
    """
    file = open_rows(path, Kind.QUESTIONS, keys)
    records: list[Record] = []
    skipped: list[str] = []
    for read in file.read():
        try:
            if read.row is None:
                raise BadRow(read.fault)
            records.append(_record(read.row))
        except BadRow as fault:
            skipped.append(fault_line(file.path, read.number, str(fault)))
            if not skip_bad_records:
                raise refusal(skipped[-1], Kind.QUESTIONS) from None
    return Dataset(tuple(records), tuple(skipped))


def read_prompts(path: str | Path, needs: Kind | None = None, keys: Keys = DEFAULT_KEYS) -> Iterator[Prompt]:
    """Messages and image sizes of every row of a file; images are not decoded.

    Rows that cannot be read are left out: `checking.check_file` names them.
    """
    for read in open_rows(path, needs, keys).read():
        if read.row is None:
            continue
        try:
            sizes = tuple(images.shown_size(read_source(source, "")) for source in read.row.sources)
        except Exception:  # a file that is not there or damaged, in whatever way
            continue
        yield Prompt(read.number, read.row.messages, sizes)


def write_records(path: str | Path, records: Iterable[Record]) -> None:
    """Stores records in the published schema, images as bytes. Only the `extra_info` keys of RECORD_SCHEMA are kept.

    Raises UserError where the disk does not take it.
    """
    rows = (
        {
            "data_source": record.data_source,
            "prompt": [{"role": message.role, "content": message.content} for message in record.prompt],
            "images": [{"bytes": data} for data in record.images],
            "ability": record.ability,
            "reward_model": {"style": record.style, "ground_truth": record.ground_truth},
            "extra_info": dict(record.extra_info),
        }
        for record in records
    )
    write_rows(path, rows, RECORD_SCHEMA)


def _record(row: CanonicalRow[Source]) -> Record:
    """Row with its images in memory. Raises BadRow where one cannot be read."""
    for index, source in enumerate(row.sources):
        inspect_image(source, f"images[{index}]")
    images = tuple(read_source(source, f"images[{index}]") for index, source in enumerate(row.sources))
    return Record(row.data_source, row.messages, images, row.ability, row.ground_truth, row.extra_info, row.style)
