"""Items in memory and models that answer by a function, for tests of the harness."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from dataclasses import dataclass, field

from PIL import Image

from codedance_verl.harness.reply import ImageFolder, Question, Reply
from codedance_verl.records.key import Json, Key, replies_key
from codedance_verl.tasks.item import Item, UnreadableImage


def png(width: int = 8, height: int = 6) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (200, 10, 10)).save(buffer, "PNG")
    return buffer.getvalue()


@dataclass(frozen=True)
class Held:
    """Image in memory; empty data cannot be read."""

    data: bytes
    where: str = "held"

    def fault(self) -> str:
        return ""

    def read(self) -> bytes:
        if not self.data:
            raise UnreadableImage("held, row 3: the image is empty")
        return self.data


def item(name: str, data: bytes | None = None, **fields: object) -> Item:
    return Item(name, f"What is {name}?", (Held(png() if data is None else data),), name, task="t", **fields)  # type: ignore[arg-type]


def key(samples: int = 1) -> Key:
    return replies_key(task="t", revision="r", model="m", prompt="p", sampling={}, limits={}, samples=samples)


@dataclass
class Scripted:
    """Model that answers by a function of the question, and notes how many it had at once."""

    reply: Callable[[Question], Reply]
    most_at_once: int = 16
    wait_s: float = 0.0
    asked: list[Question] = field(default_factory=list)
    running: int = 0
    peak: int = 0

    def describe(self) -> dict[str, Json]:
        return {"model": {"name": "scripted"}, "prompt": {"format": "code"}, "limits": {}}

    async def answer(self, question: Question, images: ImageFolder) -> Reply:
        self.asked.append(question)
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            await asyncio.sleep(self.wait_s)
            return self.reply(question)
        finally:
            self.running -= 1
