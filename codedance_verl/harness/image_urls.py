"""Images as `data:` URLs of requests, and back from those of replies."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Sequence
from typing import Any

from PIL import Image

from codedance_verl import images
from codedance_verl.environment.resized_images import source_bytes
from codedance_verl.harness.reply import Question

MEDIA_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif", "BMP": "image/bmp"}
"""Media types by Pillow's names, of the formats that a server of this project reads."""

UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What `file_url` raises for bytes that are no image, or too large a one."""

_PNG_HEAD = "data:image/png;base64,"


def file_url(data: bytes) -> str:
    """URL of an encoded file as it is; one of another format than `MEDIA_TYPES` becomes a PNG.

    Raises `UNREADABLE`.
    """
    with Image.open(io.BytesIO(data)) as opened:
        kind = MEDIA_TYPES.get(opened.format or "")
    if kind is None:
        return png_url(images.decode(data))
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def png_url(image: Image.Image) -> str:
    """URL of a decoded image, as PNG."""
    return _PNG_HEAD + base64.b64encode(source_bytes(image)).decode()


def png_of(url: Any) -> bytes:
    """PNG of a URL as a reply of this project's server has it. Raises ValueError: it is none."""
    if not isinstance(url, str) or not url.startswith(_PNG_HEAD):
        raise ValueError("an image of the reply is no PNG in a data: URL")
    try:
        return base64.b64decode(url[len(_PNG_HEAD) :], validate=True)
    except binascii.Error:
        raise ValueError("the base64 of an image of the reply is broken") from None


def image_part(url: str) -> dict[str, Any]:
    """Part of a message that is an image."""
    return {"type": "image_url", "image_url": {"url": url}}


def user_message(urls: Sequence[str], text: str) -> dict[str, Any]:
    """Message of the user: images in order, the text behind them."""
    return {"role": "user", "content": [*map(image_part, urls), {"type": "text", "text": text}]}


def question_messages(question: Question) -> list[dict[str, Any]]:
    """Messages of a question: its system message if it has one, then images and text of the user.

    Raises what `file_url` does.
    """
    system = [{"role": "system", "content": question.item.system}] if question.item.system else []
    return [*system, user_message([file_url(image) for image in question.images], question.item.question)]
