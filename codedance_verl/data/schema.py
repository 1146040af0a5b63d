"""The published RL record schema: reading with strict checks, and writing.

Columns: `data_source` str, `prompt` list of {role, content}, `images` list of {"bytes": ...} or {"path": ...},
`ability` str, `reward_model` {"style", "ground_truth"}, `extra_info` {"split", "index", "question", "answer",
"need_tools_kwargs", "tools_kwargs", ...}. Ours adds `record_id`, `kind`, `difficulty` and `variant` to `extra_info`.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, UnidentifiedImageError

from codedance_verl.errors import UserError
from codedance_verl.grading.ladder import RULE, STYLES
from codedance_verl.rollout.observations import IMAGE_PLACEHOLDER
from codedance_verl.types import record_name

_MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])
_IMAGE = pa.struct([("bytes", pa.binary())])

RECORD_SCHEMA = pa.schema(
    [
        ("data_source", pa.string()),
        ("prompt", pa.list_(_MESSAGE)),
        ("images", pa.list_(_IMAGE)),
        ("ability", pa.string()),
        (
            "reward_model",
            pa.struct([("style", pa.string()), ("ground_truth", pa.string())]),
        ),
        (
            "extra_info",
            pa.struct(
                [
                    ("split", pa.string()),
                    ("index", pa.int64()),
                    ("record_id", pa.string()),
                    ("question", pa.string()),
                    ("answer", pa.string()),
                    ("need_tools_kwargs", pa.bool_()),
                    ("kind", pa.string()),
                    ("difficulty", pa.string()),
                    ("variant", pa.string()),
                ]
            ),
        ),
    ]
)
"""What `write_records` stores."""

SFT_SCHEMA = pa.schema(
    [
        ("messages", pa.list_(_MESSAGE)),
        ("images", pa.list_(_IMAGE)),
        ("record_id", pa.string()),
        ("kind", pa.string()),
        ("difficulty", pa.string()),
        ("style", pa.string()),
    ]
)
"""Demonstrations as verl's MultiTurnSFTDataset reads them; the last four columns are for people."""

KINDS = {"prompt": "questions for RL", "messages": "demonstrations for SFT"}
"""What a file holds, by the column that only such a file has."""


@dataclass(frozen=True)
class Message:
    role: str
    content: str


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
        stored = self.extra_info.get("question")
        if stored:
            return str(stored)
        users = [message.content for message in self.prompt if message.role == "user"]
        return users[-1].replace(IMAGE_PLACEHOLDER, "").strip() if users else ""

    @property
    def record_id(self) -> str:
        return record_name(self.data_source, self.extra_info)

    def load_images(self) -> tuple[Image.Image, ...]:
        """The pictures, decoded, RGB."""
        return tuple(Image.open(io.BytesIO(data)).convert("RGB") for data in self.images)


@dataclass(frozen=True)
class Dataset:
    """The good records of a file, and one line for every row that was left out because skipping was asked for."""

    records: tuple[Record, ...]
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prompt:
    """What a row asks the model to read: its number, its messages, and width and height of its images, in order."""

    row: int
    messages: tuple[Message, ...]
    sizes: tuple[tuple[int, int], ...]


class _BadRow(Exception):
    """What is wrong with a row, in words, without the file and row."""


def read_records(path: str | Path, skip_bad_records: bool = False) -> Dataset:
    """Read and check every row of a parquet file.

    Raises UserError naming file, row, fault and cure at the first bad row, unless `skip_bad_records`; then bad rows
    are left out and listed.
    """
    path = Path(path)
    records: list[Record] = []
    skipped: list[str] = []
    for number, row in enumerate(_rows(path)):
        try:
            records.append(_parse_row(row, path.parent))
        except _BadRow as fault:
            skipped.append(_describe(path, number, fault, skip_bad_records))
    return Dataset(tuple(records), tuple(skipped))


def check_file(
    path: str | Path, skip_bad_records: bool = False, needs: str | None = None
) -> tuple[int, tuple[str, ...]]:
    """Check every row of a file of RL records or of demonstrations: how many are good, and a line per bad one.

    Args:
        path: a parquet file.
        skip_bad_records: whether bad rows are left out rather than an error.
        needs: the column of what it must hold, a key of `KINDS`; None where both will do.

    Raises:
        UserError: there is no such file, it holds the other kind, a row is bad (the first is told) unless
            `skip_bad_records`, or no row is good.
    """
    path = Path(path)
    good, skipped = 0, []
    for number, row in enumerate(_rows(path)):
        if needs is not None and needs not in row:
            raise UserError(f"{path} holds no {KINDS[needs]}: it has no column {needs} (docs/data.md)")
        try:
            if "messages" in row:
                _parse_conversation(row.get("messages"), row, "messages", path.parent)
            else:
                _parse_row(row, path.parent)
            good += 1
        except _BadRow as fault:
            skipped.append(_describe(path, number, fault, skip_bad_records))
    if not good:
        raise UserError(f"{path} holds no usable record; make or download it again")
    return good, tuple(skipped)


def check_files(paths: Iterable[str | Path], skip_bad_records: bool = False) -> tuple[str, ...]:
    """`check_file` for each; returns the lines of all bad rows."""
    return tuple(line for path in paths for line in check_file(path, skip_bad_records)[1])


def keep_good_rows(path: str | Path, target: str | Path) -> tuple[str, ...]:
    """Copy the good rows of a file of RL records to `target`, unchanged; returns a line for each row left out.

    Raises UserError where no row is good.
    """
    path = Path(path)
    table = pq.read_table(path)
    good: list[int] = []
    skipped: list[str] = []
    for number, row in enumerate(_rows(path)):
        try:
            _parse_row(row, path.parent)
            good.append(number)
        except _BadRow as fault:
            skipped.append(_describe(path, number, fault, skip_bad_records=True))
    if not good:
        raise UserError(f"{path} holds no usable record; make or download it again")
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.take(good), target)
    return tuple(skipped)


def read_prompts(path: str | Path) -> Iterator[Prompt]:
    """The messages and image sizes of every row of a file of RL records or demonstrations; images are not decoded.

    Rows that cannot be read are left out: `check_file` tells them.
    """
    path = Path(path)
    for number, row in enumerate(_rows(path)):
        try:
            name = "messages" if "messages" in row else "prompt"
            messages = _parse_messages(row.get(name), name)
            images = _as_list(row.get("images"), "images")
            sizes = tuple(_image_size(image, index, path.parent) for index, image in enumerate(images))
        except _BadRow:
            continue
        yield Prompt(number, messages, sizes)


def is_parquet(path: Path) -> bool:
    """Whether there is a file that can be read as one."""
    try:
        pq.read_schema(path)
    except (pa.ArrowException, OSError):
        return False
    return True


def write_records(path: str | Path, records: Iterable[Record]) -> None:
    """Store records in the published schema, images as bytes. Only the `extra_info` keys of RECORD_SCHEMA are kept."""
    rows = [
        {
            "data_source": record.data_source,
            "prompt": [{"role": message.role, "content": message.content} for message in record.prompt],
            "images": [{"bytes": data} for data in record.images],
            "ability": record.ability,
            "reward_model": {"style": record.style, "ground_truth": record.ground_truth},
            "extra_info": dict(record.extra_info),
        }
        for record in records
    ]
    write_rows(path, rows, RECORD_SCHEMA)


def write_rows(path: str | Path, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> None:
    """Write a parquet file in one go: either the whole file appears or none. Raises UserError where it cannot."""
    path = Path(path)
    temporary = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), temporary)
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; free some space or choose another folder"
        ) from (error)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        found = "that is a folder" if path.is_dir() else "there is none"
        raise UserError(
            f"no data file at {path}: {found}; name a parquet file of yours (docs/data.md), or make the demo's with "
            "`codedance data make --out FOLDER`"
        )
    try:
        parquet = pq.ParquetFile(path)
        for batch in parquet.iter_batches(batch_size=256):
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is not a readable parquet file ({error}); make or download it again") from error


def _describe(path: Path, number: int, fault: _BadRow, skip_bad_records: bool) -> str:
    """The line that reports a bad row; raises it as UserError where bad rows are not to be skipped."""
    line = f"{path.name} row {number}: {fault}"
    if not skip_bad_records:
        raise UserError(f"{line}; fix or drop the row, or set skip_bad_records=true")
    return line


def _parse_row(row: Mapping[str, Any], folder: Path) -> Record:
    prompt, images = _parse_conversation(row.get("prompt"), row, "prompt", folder)
    extra = row.get("extra_info") or {}
    if not isinstance(extra, Mapping):
        raise _BadRow("extra_info is not a mapping")
    return Record(
        data_source=_text(row.get("data_source"), "data_source"),
        prompt=prompt,
        images=images,
        ability=str(row.get("ability") or ""),
        ground_truth=_ground_truth(row.get("reward_model")),
        extra_info=extra,
        style=_style(row.get("reward_model")),
    )


def _parse_conversation(
    value: Any, row: Mapping[str, Any], name: str, folder: Path
) -> tuple[tuple[Message, ...], tuple[bytes, ...]]:
    """Messages and encoded images of a row, one image per placeholder."""
    messages = _parse_messages(value, name)
    images = tuple(
        _image_bytes(image, index, folder) for index, image in enumerate(_as_list(row.get("images"), "images"))
    )
    placeholders = sum(message.content.count(IMAGE_PLACEHOLDER) for message in messages)
    if not images:
        raise _BadRow("it has no image")
    if placeholders != len(images):
        raise _BadRow(f"{name} has {placeholders} {IMAGE_PLACEHOLDER} but there are {len(images)} images")
    return messages, images


def _parse_messages(value: Any, name: str) -> tuple[Message, ...]:
    messages = []
    for index, message in enumerate(_as_list(value, name)):
        if not isinstance(message, Mapping):
            raise _BadRow(f"{name}[{index}] is not a message with role and content")
        role = _text(message.get("role"), f"{name}[{index}].role")
        messages.append(Message(role, _text(message.get("content"), f"{name}[{index}].content")))
    if not any(message.role == "user" for message in messages):
        raise _BadRow(f"{name} has no user message")
    return tuple(messages)


def _ground_truth(value: Any) -> str:
    truth = value.get("ground_truth") if isinstance(value, Mapping) else None
    if truth is None or not str(truth).strip():
        raise _BadRow("reward_model.ground_truth is missing or empty")
    return str(truth)


def _style(value: Any) -> str:
    style = (value.get("style") if isinstance(value, Mapping) else None) or RULE
    if style not in STYLES:
        raise _BadRow(f"reward_model.style is {style!r}; known are {', '.join(STYLES)}")
    return str(style)


def _image_size(value: Any, index: int, folder: Path) -> tuple[int, int]:
    """Width and height, from the head of the file."""
    where = f"images[{index}]"
    try:
        with Image.open(io.BytesIO(_encoded_image(value, where, folder))) as image:
            return image.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise _BadRow(f"{where} is not a readable image") from None


def _encoded_image(value: Any, where: str, folder: Path) -> bytes:
    if not isinstance(value, Mapping) or not (value.get("bytes") or value.get("path")):
        raise _BadRow(f'{where} has neither "bytes" nor "path"')
    return bytes(value.get("bytes") or _read_image_file(folder / str(value["path"]), where))


def _image_bytes(value: Any, index: int, folder: Path) -> bytes:
    where = f"images[{index}]"
    data = _encoded_image(value, where, folder)
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "unknown or damaged format" if isinstance(error, UnidentifiedImageError) else str(error)
        raise _BadRow(f"{where} is not a readable image ({reason})") from None
    return data


def _read_image_file(path: Path, where: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _BadRow(f"{where} names the file {path}, which cannot be read ({error.strerror})") from None


def _as_list(value: Any, name: str) -> list[Any]:
    if value is None:
        raise _BadRow(f"{name} is missing")
    if not isinstance(value, list):
        raise _BadRow(f"{name} is not a list")
    return value


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value:
        raise _BadRow(f"{name} is missing or not text")
    return value
