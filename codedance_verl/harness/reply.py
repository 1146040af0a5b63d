"""Reply of a model to an item: what is asked, what comes back, and the faults that leave an item unanswered."""

from __future__ import annotations

import hashlib
import io
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
from PIL import Image

from codedance_verl.records.key import Json
from codedance_verl.records.record import Status
from codedance_verl.runtime.atomic import replacing
from codedance_verl.tasks.item import Item
from codedance_verl.trajectories.schema import ImageRef, Timing, TurnRecord
from codedance_verl.types import FinishReason


@dataclass(frozen=True)
class Question:
    """Item as it is asked.

    Attributes:
        item: what is asked; its `question` is the text of the user's message, behind the images.
        images: encoded files in order, read and checked, blank where the control says so.
        sample: number of the reply, from 0.
    """

    item: Item
    images: tuple[bytes, ...]
    sample: int


class Reply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Reply to a question, as a record keeps it.

    Attributes:
        text: final answer as a client of the server gets it; empty where there is none. Rules and graders read it.
        finish: reason of the trajectory's end; None from an endpoint that does not say.
        turns: of the model, with code, executions and the feedback that it read; images by reference.
        prompt_tokens, completion_tokens: counts; None where they are not known.
        timing: wall seconds by activity.
        served_by: name of the model as the endpoint states it.
    """

    text: str
    finish: FinishReason | None = None
    turns: tuple[TurnRecord, ...] = ()
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    timing: Timing | None = None
    served_by: str = ""

    @property
    def calls(self) -> int:
        """Number of cells that ran."""
        return sum(turn.execution is not None and turn.execution.executed for turn in self.turns)

    def as_json(self) -> dict[str, Any]:
        """Value of JSON, for `Record.data`."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found

    @classmethod
    def from_json(cls, value: Any) -> Reply:
        """Reply of a record. Raises ValueError: it holds none."""
        return msgspec.convert(value, cls)


class Unanswered(Exception):
    """Fault outside of the model; the item is on record with `status` and counts as wrong.

    `of_item`: it lies in what was asked, such as a prompt that is too long, and says nothing about the endpoint.
    """

    def __init__(self, status: Status, reason: str, of_item: bool = False) -> None:
        super().__init__(reason)
        self.status, self.reason, self.of_item = status, reason, of_item


class Overloaded(Exception):
    """Refusal of an endpoint that has too much to do: the question is asked again, and fewer at once."""

    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason, self.retry_after_s = reason, retry_after_s


class Answerer(Protocol):
    """Model behind whatever runs it. `describe` holds what decides about replies, and nothing about speed."""

    @property
    def most_at_once(self) -> int:
        """Questions that it can take at the same time."""
        ...

    def describe(self) -> dict[str, Json]:
        """Parts `model`, `prompt` and `limits` of the key of records (`records.key.replies_key`)."""
        ...

    async def answer(self, question: Question, images: ImageFolder) -> Reply:
        """Reply to a question; images that code returned are kept in `images`.

        Raises:
            Overloaded: to be asked again later.
            Unanswered: something outside of the model failed.
        """
        ...


@dataclass(frozen=True)
class ImageFolder:
    """Images by the hash of their PNG, below a folder that trajectory logs share the form of (`ImageRef.file`)."""

    folder: Path

    def keep(self, png: bytes) -> ImageRef:
        """Reference of an image, which is written unless it is there. Raises OSError; ValueError: it is no image."""
        with Image.open(io.BytesIO(png)) as image:
            width, height = image.size
        reference = ImageRef(hashlib.sha256(png).hexdigest(), width, height)
        path = reference.file(self.folder)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            # replies that show the same image are kept at the same time, by threads and nodes
            with replacing(path, writer=secrets.token_hex(8), durable=False) as partial:
                partial.write_bytes(png)
        return reference
