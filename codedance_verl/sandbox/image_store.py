"""Encoded images of questions that a node keeps by their digest, so that a group's sessions send them once."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence

from codedance_verl.sandbox.errors import SandboxError

KEPT_BYTES = 128 * 1024 * 1024
"""Bytes that a store keeps; those used longest ago go first. A session holds its own images besides."""

_LONG_BYTES = 256 * 1024
"""Length from which an image is hashed in a thread, since the loop serves other sessions meanwhile."""

Fetch = Callable[[Sequence[bytes]], Awaitable[Sequence[bytes]]]
"""Gets the images of some digests from the one who named them."""


async def digests_of(images: Sequence[bytes]) -> list[bytes]:
    """Returns the SHA-256 of each image."""
    if sum(map(len, images)) < _LONG_BYTES:
        return [_digest(image) for image in images]
    return await asyncio.to_thread(lambda: [_digest(image) for image in images])


class ImageStore:
    """Images by digest, for one event loop. An image that several ask for at once is fetched from one of them."""

    def __init__(self, kept_bytes: int = KEPT_BYTES) -> None:
        self._limit = kept_bytes
        self._kept: OrderedDict[bytes, bytes] = OrderedDict()
        self._bytes = 0
        self._coming: dict[bytes, asyncio.Future[None]] = {}

    async def get(self, digests: Sequence[bytes], fetch: Fetch) -> list[bytes]:
        """Returns the images of `digests`; `fetch` is asked for those that are not here and not coming.

        Raises:
            SandboxError: what `fetch` returns are other images. It raises what `fetch` does, too.
        """
        found: dict[bytes, bytes] = {}
        while missing := self._missing(digests, found):
            if others := [self._coming[digest] for digest in missing if digest in self._coming]:
                await asyncio.wait(others)  # each ends: its fetcher's connection does, if nothing else
                continue
            found |= await self._fetched(missing, fetch)
        return [found[digest] for digest in digests]

    def _missing(self, digests: Sequence[bytes], found: dict[bytes, bytes]) -> list[bytes]:
        """Moves what is kept into `found` and returns the digests that are in neither."""
        for digest in digests:
            if digest in self._kept:
                self._kept.move_to_end(digest)
                found[digest] = self._kept[digest]
        return [digest for digest in dict.fromkeys(digests) if digest not in found]

    async def _fetched(self, digests: Sequence[bytes], fetch: Fetch) -> dict[bytes, bytes]:
        coming: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._coming |= dict.fromkeys(digests, coming)
        try:
            images = await fetch(digests)
            if await digests_of(images) != list(digests):
                raise SandboxError("an image is not the one that was announced")
            fetched = dict(zip(digests, images, strict=True))
            for digest, image in fetched.items():
                self._keep(digest, image)
            return fetched
        finally:
            for digest in digests:
                del self._coming[digest]
            coming.set_result(None)

    def _keep(self, digest: bytes, image: bytes) -> None:
        self._kept[digest] = image
        self._bytes += len(image)
        while self._bytes > self._limit:
            self._bytes -= len(self._kept.popitem(last=False)[1])


def _digest(image: bytes) -> bytes:
    return hashlib.sha256(image).digest()
