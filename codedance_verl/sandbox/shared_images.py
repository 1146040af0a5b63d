"""Images that the sessions of one interpreter share, as the host knows them: what its zygote holds, and for whom."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from codedance_verl.sandbox.wire import Message


@dataclass
class HeldImage:
    """An image that a zygote holds under `key`.

    `uid` is that of the process which decodes it. `users` counts the sessions that have it. `memory_bytes` is what it
    uses by the zygote's word, once it `is_finished`, and the size of its file before.
    """

    digest: bytes
    key: str
    uid: int
    memory_bytes: int
    users: int = 0
    is_finished: bool = False


class SharedImages:
    """Images of one zygote, which ends with its connection.

    `send` sends to the zygote, `next_uid` gives user ids, and `end` kills what is left of the process that decoded an
    image which is forgotten.
    """

    def __init__(
        self, send: Callable[[Message], None], next_uid: Callable[[], int], end: Callable[[HeldImage], None]
    ) -> None:
        self._send = send
        self._next_uid = next_uid
        self._end = end
        self._numbers = itertools.count()
        self._by_digest: dict[bytes, HeldImage] = {}  # those that further sessions can have, the last used last
        self._by_key: dict[str, HeldImage] = {}

    def take(self, images: Sequence[bytes], digests: Sequence[bytes], limits: dict[str, int]) -> list[HeldImage]:
        """Returns the images for one more session; those that are not there are sent to the zygote."""
        taken = []
        for data, digest in zip(images, digests, strict=True):
            held = self._by_digest.pop(digest, None)
            if held is None:
                held = HeldImage(digest, str(next(self._numbers)), self._next_uid(), len(data))
                self._by_key[held.key] = held
                self._send({"op": "image", "image": held.key, "uid": held.uid, "limits": limits, "data": data})
            self._by_digest[digest] = held
            held.users += 1
            taken.append(held)
        return taken

    def give_back(self, taken: Sequence[HeldImage], kept_bytes: int) -> None:
        """Ends a session's use of its images. Of those that no session uses, `kept_bytes` are kept, the last used."""
        for held in taken:
            held.users -= 1
            if held.users == 0 and self._by_digest.get(held.digest) is not held:
                self._forget(held)  # it has failed
        self._keep(kept_bytes)

    def note(self, message: Message, kept_bytes: int) -> None:
        """Notes the zygote's word on an image: the memory it uses, or 0 where it has failed and may be tried again."""
        held = self._by_key.get(str(message.get("image")))
        if held is None:
            return
        used = message.get("bytes")
        held.is_finished = True
        held.memory_bytes = used if isinstance(used, int) and used > 0 else 0
        if held.memory_bytes == 0 and self._by_digest.get(held.digest) is held:
            del self._by_digest[held.digest]
            if held.users == 0:
                self._forget(held)
        self._keep(kept_bytes)

    @property
    def decoded_bytes(self) -> int:
        """Memory of the images that are decoded, whether sessions use them or not."""
        return sum(held.memory_bytes for held in self._by_key.values() if held.is_finished)

    def _keep(self, most_bytes: int) -> None:
        unused = [held for held in self._by_digest.values() if not held.users]
        too_many = sum(held.memory_bytes for held in unused) - most_bytes
        for held in unused:
            if too_many <= 0:
                return
            too_many -= held.memory_bytes
            del self._by_digest[held.digest]
            self._forget(held)

    def _forget(self, held: HeldImage) -> None:
        del self._by_key[held.key]
        self._send({"op": "forget", "image": held.key})
        self._end(held)
