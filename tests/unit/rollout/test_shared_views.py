from __future__ import annotations

import asyncio
import io

from PIL import Image

from codedance_verl.rollout.views import SharedViews, make_view, put_views, source_bytes


def encoded(size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, "teal").save(buffer, "PNG")
    return buffer.getvalue()


def test_rollouts_of_a_group_share_their_views_which_are_made_once() -> None:
    shared, calls = SharedViews(), 0

    async def make() -> list[Image.Image]:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0)
        return [Image.new("RGB", (8, 8))]

    async def all_of_a_group() -> list[list[Image.Image]]:
        return await asyncio.gather(*(shared.get(make) for _ in range(4)))

    first, *others = asyncio.run(all_of_a_group())
    assert calls == 1 and all(views[0] is first[0] for views in others)
    first.append(Image.new("RGB", (9, 9)))
    assert all(len(views) == 1 for views in others), "each rollout adds pictures of its own"


def test_one_that_could_not_be_made_is_made_by_the_next() -> None:
    async def fail() -> list[Image.Image]:
        raise OSError("broken")

    async def succeed() -> list[Image.Image]:
        return []

    async def both() -> object:
        shared = SharedViews()
        failed = await asyncio.gather(shared.get(fail), return_exceptions=True)
        assert isinstance(failed[0], OSError)
        return await shared.get(succeed)

    assert asyncio.run(both()) == []


def test_a_decoded_picture_gives_way_to_its_view_and_the_sandbox_still_gets_the_file() -> None:
    file = encoded((900, 600))
    decoded = {"type": "image", "image": Image.open(io.BytesIO(file)), "bytes": file}
    only_decoded = {"type": "image", "image": Image.new("RGB", (900, 600), "red")}
    messages = [{"role": "system", "content": "Look."}, {"role": "user", "content": [decoded, only_decoded]}]
    views = [make_view(Image.new("RGB", (900, 600)), 10_000) for _ in range(2)]
    put_views(messages, views)
    assert decoded["image"] is views[0] and source_bytes(decoded) == file
    assert Image.open(io.BytesIO(source_bytes(only_decoded))).size == (900, 600), "there is no other source of it"


def test_a_picture_that_needs_no_change_is_its_own_view() -> None:
    picture = Image.new("RGB", (60, 40))
    assert make_view(picture, 10_000) is picture
