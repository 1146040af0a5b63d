"""Store of the images that a zygote has decoded for its sessions; the host says when one is no longer needed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from . import room, shared_images
from .shared_images import SharedImage
from .wire import Message


@dataclass
class _Held:
    """An image, with what only the zygote has: the writable memory file until it is sealed, and the pipe it closes."""

    image: SharedImage
    writable: int
    undecoded: int


class ImageStore:
    """Images by key, and the processes that decode some of them."""

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}
        self._decoders: dict[int, str] = {}

    @property
    def memory_bytes(self) -> int:
        """Memory of the images that are finished."""
        return sum(_used_bytes(held.image.file) for held in self._held.values() if held.writable < 0)

    def add(self, key: str) -> tuple[int, int]:
        """Adds an image that is still to be decoded. Returns what its decoder takes: memory file and pipe to close."""
        writable = os.memfd_create("image", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        checked, unchecked = os.pipe()
        decoded, undecoded = os.pipe()
        # Sessions get a descriptor that cannot be written to.
        file = os.open(f"/proc/self/fd/{writable}", os.O_RDONLY | os.O_CLOEXEC)
        self._held[key] = _Held(SharedImage(file, checked, decoded), writable, undecoded)
        return writable, unchecked

    def decoder_started(self, pid: int, key: str) -> None:
        self._decoders[pid] = key

    def decoder_ended(self, pid: int, status: int) -> Message | None:
        """Seals what a decoder has left. Returns the news of it for the host; None where `pid` was no decoder."""
        held = self._held.get(key := self._decoders.pop(pid, ""))
        return None if held is None else self._finish(key, held, room.lacking_by_end(status))

    def give_up(self, key: str, reason: str, lacks: str) -> Message:
        """Ends an image for which there is no decoder. Returns the news of it for the host."""
        held = self._held[key]
        shared_images.fail(held.writable, reason, lacks)
        return self._finish(key, held, lacks)

    def images(self, keys: Sequence[str]) -> list[SharedImage]:
        """Returns images by key. Raises `LookupError` for one that is not there."""
        return [self._held[key].image for key in keys]

    def forget(self, key: str) -> None:
        """Drops an image; sessions keep what they have mapped."""
        held = self._held.pop(key, None)
        if held is not None:
            held.image.close()
            if held.writable >= 0:
                os.close(held.writable)
                os.close(held.undecoded)

    def _finish(self, key: str, held: _Held, lacks: str) -> Message:
        if not shared_images.is_finished(held.writable):
            shared_images.fail(held.writable, "the process that decoded it has died", lacks)
        is_decoded = shared_images.is_decoded(held.writable)
        shared_images.seal(held.writable)
        os.close(held.writable)
        os.close(held.undecoded)
        held.writable = held.undecoded = -1
        return {"op": "image", "image": key, "bytes": _used_bytes(held.image.file) if is_decoded else 0}


def _used_bytes(file: int) -> int:
    return os.fstat(file).st_blocks * 512
