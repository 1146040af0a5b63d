"""Images kept by digest: bounded, and fetched once by however many ask."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

import pytest

from codedance_verl.sandbox.errors import SandboxError
from codedance_verl.sandbox.image_store import ImageStore, digests_of


@pytest.mark.asyncio
async def test_what_was_used_longest_ago_goes_first_and_the_bound_holds() -> None:
    images = {digest: image for image in (os.urandom(100) for _ in range(5)) for digest in await digests_of([image])}
    fetched: list[bytes] = []

    async def fetch(digests: Sequence[bytes]) -> list[bytes]:
        fetched.extend(digests)
        return [images[digest] for digest in digests]

    store = ImageStore(kept_bytes=300)
    first, second, third, fourth, _ = images
    await store.get([first, second, third], fetch)
    await store.get([first], fetch)
    assert await store.get([fourth], fetch) == [images[fourth]]
    assert store._bytes == 300 and len(fetched) == 4
    await store.get([first], fetch)
    assert len(fetched) == 4
    await store.get([second], fetch)
    assert fetched[4:] == [second]


@pytest.mark.asyncio
async def test_an_image_beyond_the_bound_is_passed_on_and_not_kept() -> None:
    image = os.urandom(1000)
    store = ImageStore(kept_bytes=300)

    async def fetch(digests: Sequence[bytes]) -> list[bytes]:
        return [image]

    assert await store.get(await digests_of([image]), fetch) == [image]
    assert store._bytes == 0


@pytest.mark.asyncio
async def test_who_waits_for_an_image_fetches_it_when_the_first_fails() -> None:
    image, store, asked = b"image", ImageStore(), 0
    digests = await digests_of([image])

    async def fetch(_: Sequence[bytes]) -> list[bytes]:
        nonlocal asked
        asked += 1
        number = asked
        await asyncio.sleep(0.01)
        if number == 1:
            raise EOFError
        return [image if number == 2 else b"another"]

    found = await asyncio.gather(*(store.get(digests, fetch) for _ in range(4)), return_exceptions=True)
    assert isinstance(found[0], EOFError) and found[1:] == [[image]] * 3 and asked == 2
    with pytest.raises(SandboxError, match="announced"):
        await ImageStore().get(digests, fetch)


@pytest.mark.asyncio
async def test_long_images_have_the_digests_of_short_ones() -> None:
    long, short = os.urandom(400_000), b"x"
    assert await digests_of([long, short]) == [*(await digests_of([long])), *(await digests_of([short]))]
