from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from codedance_verl.environment.resized_images import (
    ResizedImage,
    SharedImages,
    load_resized,
    resize_image,
    resized_size,
    source_bytes,
)
from codedance_verl.images import decode, pixels_sha256


def encoded(size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, "teal").save(buffer, "PNG")
    return buffer.getvalue()


def test_rollouts_of_a_group_share_their_views_which_are_made_once() -> None:
    shared, calls = SharedImages(), 0

    async def make() -> list[ResizedImage]:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0)
        return [ResizedImage(Image.new("RGB", (8, 8)), "")]

    async def all_of_a_group() -> list[list[ResizedImage]]:
        return await asyncio.gather(*(shared.get(make) for _ in range(4)))

    first, *others = asyncio.run(all_of_a_group())
    assert calls == 1 and all(views[0] is first[0] for views in others)
    first.append(ResizedImage(Image.new("RGB", (9, 9)), ""))
    assert all(len(views) == 1 for views in others), "each rollout adds pictures of its own"


def test_one_that_could_not_be_made_is_made_by_the_next() -> None:
    async def fail() -> list[ResizedImage]:
        raise OSError("broken")

    async def succeed() -> list[ResizedImage]:
        return []

    async def both() -> object:
        shared = SharedImages()
        failed = await asyncio.gather(shared.get(fail), return_exceptions=True)
        assert isinstance(failed[0], OSError)
        return await shared.get(succeed)

    assert asyncio.run(both()) == []


def test_views_are_made_of_files_bytes_and_decoded_images(tmp_path: Path) -> None:
    file = encoded((900, 600))
    (tmp_path / "a.png").write_bytes(file)
    parts: list[dict[str, Any]] = [
        {"type": "image", "bytes": file},
        {"type": "image", "image": str(tmp_path / "a.png")},
        {"type": "image", "image": tmp_path / "a.png"},
        {"type": "image", "image": Image.new("RGB", (900, 600), "teal")},
    ]
    messages = [{"role": "system", "content": "Look."}, {"role": "user", "content": parts}]
    views = load_resized(messages, 10_000)
    whole = pixels_sha256(Image.new("RGB", (900, 600), "teal"))
    assert all(view.image.size == (122, 81) and view.pixels_sha256 == whole for view in views) and len(views) == 4
    assert [pixels_sha256(decode(source_bytes(part))) for part in parts] == [whole] * 4


@pytest.mark.parametrize(
    ("size", "seen"),
    [
        ((10, 10), (28, 28)),
        ((1, 300), (28, 2800)),
        ((27, 540), (28, 560)),
        ((3, 2), (42, 28)),
        ((640, 480), (640, 480)),
    ],
)
def test_narrow_images_are_padded_and_small_ones_enlarged(size: tuple[int, int], seen: tuple[int, int]) -> None:
    assert resized_size(*size, None) == resized_size(*size, 1_000_000) == seen
    assert resize_image(Image.new("RGB", size), 1_000_000).size == seen


def test_a_picture_that_needs_no_change_is_its_own_view() -> None:
    picture = Image.new("RGB", (60, 40))
    assert resize_image(picture, 10_000) is picture
