"""Questions as the harness asks them, for tests of what answers."""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import Image

from codedance_verl.harness.reply import Question
from codedance_verl.tasks.item import Item


def encoded(width: int = 40, height: int = 30, kind: str = "PNG", shade: int = 0) -> bytes:
    """File of an image."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (shade, 90, 160)).save(buffer, kind)
    return buffer.getvalue()


@dataclass(frozen=True)
class _File:
    data: bytes

    where: str = "nowhere"

    def fault(self) -> str:
        return ""

    def read(self) -> bytes:
        return self.data


def question(text: str, *files: bytes, sample: int = 0, system: str = "") -> Question:
    """Question with images, one of its own where none is given."""
    images = files or (encoded(),)
    item = Item(id="1", question=text, images=tuple(map(_File, images)), truth="7", task="made_up", system=system)
    return Question(item, images, sample)
