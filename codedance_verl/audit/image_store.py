"""Distinct images of one side of the comparison, numbered as they come, each hashed once."""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from codedance_verl import images
from codedance_verl.audit.thumbnails import SIDE, Thumbnail, thumbnail_of

_QUALITY = 92

Hashes = Callable[[Thumbnail], NDArray[np.uint64]]


@dataclass(frozen=True)
class Small:
    """Image as it is kept: a square JPEG of `SIDE` pixels, about 20 kB, and the width and height of the image."""

    jpeg: bytes
    size: tuple[int, int]

    @classmethod
    def of(cls, data: bytes) -> Small:
        """Small form of an encoded image. Raises what `images.decode` does."""
        image = images.decode(data)
        square = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=3.0)
        buffer = io.BytesIO()
        square.save(buffer, "JPEG", quality=_QUALITY, subsampling=0)
        return cls(buffer.getvalue(), image.size)

    def thumbnail(self) -> Thumbnail:
        """Planes that hashes and checks compare, of both sides from this form alone."""
        return thumbnail_of(images.decode(self.jpeg))


class SmallImages:
    """Small images in a file without a name, which ends with the process; in memory are their places."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # it is open as long as this object is
        self._places: dict[int, tuple[int, int, tuple[int, int]]] = {}

    def __contains__(self, number: int) -> bool:
        return number in self._places

    def __setitem__(self, number: int, small: Small) -> None:
        start = self._file.seek(0, io.SEEK_END)
        self._file.write(small.jpeg)
        self._places[number] = (start, len(small.jpeg), small.size)

    def __getitem__(self, number: int) -> Small:
        start, length, size = self._places[number]
        self._file.seek(start)
        return Small(self._file.read(length), size)


class ImageStore:
    """Numbers images by the digest of their files and hashes each once, in the executor's threads.

    `hashes` gives one row of hashes of a thumbnail. With `keep` small forms are kept in `small`, of every image.
    """

    def __init__(self, hashes: Hashes, executor: Executor, keep: bool = False) -> None:
        self._hashes, self._executor, self._keep = hashes, executor, keep
        self._numbers: dict[bytes, int] = {}
        self._rows: list[NDArray[np.uint64] | None] = []
        self.small = SmallImages()

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, found: Sequence[Iterable[bytes]]) -> list[tuple[tuple[int, ...], tuple[str, ...]]]:
        """Adds the encoded images of some records; returns the numbers of each, and reasons for unreadable ones."""
        numbered = [[self._number(data) for data in of_record] for of_record in found]
        done = {
            number: self._settled(number, work) for record in numbered for number, work in record if work is not None
        }
        return [
            (
                tuple(number for number, _ in record if self._rows[number] is not None),
                tuple(
                    done.get(number) or "an image cannot be decoded"
                    for number, _ in record
                    if self._rows[number] is None
                ),
            )
            for record in numbered
        ]

    def number_of(self, data: bytes) -> int | None:
        """Number of an encoded image that was added; None for another one."""
        return self._numbers.get(_digest(data))

    def rows(self) -> NDArray[np.uint64]:
        """Hashes of all images, shape (images, hashes of one); an unreadable one is as far as can be from nothing."""
        width = next((len(row) for row in self._rows if row is not None), 1)
        empty = np.zeros(width, np.uint64)
        return np.array([empty if row is None else row for row in self._rows], np.uint64).reshape(-1, width)

    def readable(self) -> NDArray[np.bool_]:
        """Whether each image could be decoded, shape (images,)."""
        return np.array([row is not None for row in self._rows], bool)

    def _number(self, data: bytes) -> tuple[int, Future[tuple[NDArray[np.uint64], Small]] | None]:
        digest = _digest(data)
        if digest in self._numbers:
            return self._numbers[digest], None
        self._numbers[digest] = number = len(self._rows)
        self._rows.append(None)
        return number, self._executor.submit(self._measured, data)

    def _measured(self, data: bytes) -> tuple[NDArray[np.uint64], Small]:
        small = Small.of(data)
        return self._hashes(small.thumbnail()), small

    def _settled(self, number: int, work: Future[tuple[NDArray[np.uint64], Small]]) -> str:
        try:
            self._rows[number], small = work.result()
        except Exception as error:  # decoders of damaged files raise anything
            return f"an image cannot be decoded ({error})"
        if self._keep:
            self.small[number] = small
        return ""


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
