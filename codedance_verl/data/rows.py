"""Canonical rows: what any row of any writer means, the same for every reader.

Checks, the datasets of training, evaluation and the recipes all go through `canonical_row`, so that what one of them
refuses all of them refuse, in the same words. docs/data.md has the table of forms.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Generic, TypeVar

from codedance_verl.data.conditions import Condition
from codedance_verl.data.fields import BadRow, Message, Source, check_text, messages_of, sources_of, truth_of
from codedance_verl.errors import UserError
from codedance_verl.grading.matchers import MODEL, RULE, STYLES
from codedance_verl.types import IMAGE_PLACEHOLDER, question_of

# Styles of published files that mean one of ours.
STYLE_ALIASES = {"qa": MODEL}

# Keys of `extra_info` that arguments of verl's own tools stand in, at times with the image a second time.
NOT_KEPT = ("tools_kwargs", "interaction_kwargs")

OTHER_MEDIA = ("videos", "audios")

# Columns of demonstrations that describe them, for people and for mixtures.
LABELS = ("record_id", "kind", "difficulty", "style")


class Kind(StrEnum):
    """Kind of a file, by its content."""

    QUESTIONS = "questions for RL"
    DEMONSTRATIONS = "demonstrations for SFT"


@dataclass(frozen=True)
class Keys:
    """Names of columns: `data.prompt_key` (of SFT `data.messages_key`) and `data.image_key`."""

    prompt: str = "prompt"
    images: str = "images"


DEFAULT_KEYS = Keys()
_PROMPTS = ("prompt", "messages")


Image = TypeVar("Image")


@dataclass(frozen=True)
class CanonicalRow(Generic[Image]):
    """A row as every reader has it.

    `sources` has one image per `<image>` of the messages, in order: a `Source` where the row comes from a file, a
    `StoredImage` or a path where it comes from a table (`table.py`). The fields from `data_source` on are those of a
    question and empty for a demonstration, but for `extra_info`, which has its `LABELS`.
    """

    messages: tuple[Message, ...]
    sources: tuple[Image, ...]
    data_source: str = ""
    ability: str = ""
    ground_truth: str = ""
    style: str = RULE
    extra_info: Mapping[str, Any] = field(default_factory=dict)

    @property
    def question(self) -> str:
        """The question as stored, or the last user message without its image placeholders."""
        return question_of(self.extra_info, ((message.role, message.content) for message in self.messages))


@dataclass(frozen=True)
class Columns:
    """Columns of a file: its kind, and the names of its messages and of its images, if any."""

    kind: Kind
    prompt: str
    images: str | None

    @property
    def read(self) -> tuple[str, ...]:
        """Names of the columns that are read."""
        images = (self.images,) if self.images else ()
        rest = ("data_source", "ability", "reward_model", "extra_info") if self.kind is Kind.QUESTIONS else LABELS
        return (self.prompt, *images, *OTHER_MEDIA, *rest)


def find_columns(path: Path, names: Sequence[str], needs: Kind | None, keys: Keys = DEFAULT_KEYS) -> Columns:
    """Columns of a file with these names.

    A file with `reward_model` holds questions, any other demonstrations. Both `prompt` and `messages` are found under
    the default keys.

    Raises UserError: the file holds the other kind, or a key names no column.
    """
    kind = needs or (Kind.QUESTIONS if "reward_model" in names else Kind.DEMONSTRATIONS)
    if kind is Kind.QUESTIONS and "reward_model" not in names:
        raise UserError(f"{path} holds no {kind}: it has no column reward_model (docs/data.md)")
    prompt = keys.prompt if keys.prompt in names else None
    if prompt is None and keys.prompt in _PROMPTS:
        prompt = next((name for name in _PROMPTS if name in names), None)
    if prompt is None:
        key = "prompt_key" if kind is Kind.QUESTIONS else "messages_key"
        raise UserError(
            f"{path} holds no {kind}: it has no column {keys.prompt} (data.{key}); it has {', '.join(names)}"
        )
    if kind is Kind.DEMONSTRATIONS and "reward_model" in names and prompt == "prompt":
        raise UserError(f"{path} holds no {kind}: it has no column messages (docs/data.md)")
    columns = Columns(kind, prompt, _image_column(path, names, keys))
    if twice := [name for name in columns.read if names.count(name) > 1]:
        raise UserError(f"{path} has several columns of the name {twice[0]}; drop or rename them")
    return columns


def canonical_row(row: Mapping[str, Any], columns: Columns, folder: Path) -> CanonicalRow[Source]:
    """Canonical form of a row. `folder` is that of its file.

    Raises BadRow: something is missing, contradicts something else or cannot be understood. Image files are neither
    looked for nor decoded.
    """
    messages, references = messages_of(row.get(columns.prompt), columns.prompt)
    name = columns.images or "images"
    sources = sources_of(row.get(name) if columns.images else None, name, folder)
    sources = sources or sources_of(list(references), f"image parts of {columns.prompt}", folder)
    _check_counts(messages, sources, columns)
    for other in OTHER_MEDIA:
        if row.get(other):
            raise BadRow(f"it has {other}, which this environment does not take")
    if columns.kind is Kind.DEMONSTRATIONS:
        if not any(message.role == "assistant" for message in messages):
            raise BadRow(f"{columns.prompt} has no assistant message: nothing can be learnt from it")
        labels = {name: str(row[name]) for name in LABELS if row.get(name)}
        check_text(labels, "the row")
        return CanonicalRow(messages, sources, extra_info=labels)
    if messages[-1].role == "assistant":
        raise BadRow(f"{columns.prompt} ends with an assistant message: nothing is left to answer")
    reward_model = mapping_of(row.get("reward_model"), "reward_model")
    extra_info = mapping_of(row.get("extra_info"), "extra_info")
    try:
        Condition.of(extra_info)
    except ValueError as fault:  # here, as the rollout that would find it may start hours later
        raise BadRow(str(fault)) from None
    extra_info = {key: value for key, value in extra_info.items() if _kept(key)}
    check_text(extra_info, "extra_info")
    check_text(reward_model.get("ground_truth"), "reward_model.ground_truth")
    return CanonicalRow(
        messages,
        sources,
        data_source=_text(row.get("data_source"), "data_source"),
        ability=str(row.get("ability") or ""),
        ground_truth=truth_of(reward_model.get("ground_truth")),
        style=style_of(reward_model.get("style")),
        extra_info=extra_info,
    )


def _image_column(path: Path, names: Sequence[str], keys: Keys) -> str | None:
    if keys.images in names:
        return keys.images
    if keys.images != DEFAULT_KEYS.images:
        raise UserError(f"{path} has no column {keys.images} (data.image_key); it has {', '.join(names)}")
    if "image" in names:
        raise UserError(f"{path} has no column images, but a column image; set data.image_key=image to read it")
    return None


def _check_counts(messages: Sequence[Message], sources: Sequence[Source], columns: Columns) -> None:
    """Raises BadRow unless each placeholder has an image, and a question at least one."""
    placeholders = sum(message.content.count(IMAGE_PLACEHOLDER) for message in messages)
    if not sources and (placeholders or columns.kind is Kind.QUESTIONS):
        raise BadRow("it has no image")
    if placeholders != len(sources):
        raise BadRow(f"{columns.prompt} has {placeholders} {IMAGE_PLACEHOLDER} but there are {len(sources)} images")


def _kept(key: Any) -> bool:
    return isinstance(key, str) and key not in NOT_KEPT


def mapping_of(value: Any, name: str) -> Mapping[str, Any]:
    """A struct, a map or an object in JSON text; nothing at all is an empty one."""
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise BadRow(f"{name} is text that is no JSON") from None
    # pyarrow gives a map as a list of pairs
    if isinstance(value, list) and all(isinstance(item, tuple) and len(item) == 2 for item in value):
        value = dict(value)
    if not value and value != 0:
        return {}
    if not isinstance(value, Mapping):
        raise BadRow(f"{name} is not a mapping")
    return value


def style_of(value: Any) -> str:
    """Style of grading, by its name in the file. Raises BadRow for an unknown one."""
    style = STYLE_ALIASES.get(str(value), value) or RULE
    if not isinstance(style, str) or style not in STYLES:
        raise BadRow(f"reward_model.style is {style!r}; known are {', '.join([*STYLES, *STYLE_ALIASES])}")
    return style


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value:
        raise BadRow(f"{name} is missing or not text")
    return value
