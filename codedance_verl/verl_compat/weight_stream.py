"""Stream of weights in buckets: cast, packed and hashed by the sender; checked and joined by a receiver.

A bucket is one array of bytes. Tensors lie in it one behind the other, and one that does not fit is cut at the end of a
bucket and continues in the next: no tensor is too large, and host memory holds no more than a bucket at a time.
verl 0.9.1 hands over whole tensors in the trainer's dtype, float32 as a rule: twice what a rollout in bfloat16 keeps.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xxhash


class WeightsDiffer(RuntimeError):
    """Error of a rollout worker that received other weights than the actor sent."""


@dataclass(frozen=True)
class Piece:
    """Place of a tensor's bytes in a bucket.

    Attributes:
        name, shape, dtype: of the whole tensor, as a receiver yields it.
        offset: bytes of the tensor that came before this piece.
        start: bytes of the bucket before it; a multiple of the size of a value.
        length: bytes of the piece.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    offset: int
    start: int
    length: int


@dataclass(frozen=True)
class Bucket:
    """Pieces in the order of their tensors, and their bytes: uint8 [size of the bucket].

    `digest` is that of `digest_of`, empty where nothing is checked.
    """

    pieces: tuple[Piece, ...]
    data: np.ndarray[tuple[int], np.dtype[np.uint8]]
    digest: str


class Chain:
    """Running hash over the digests of buckets: a bucket that is lost, doubled or out of order changes it."""

    def __init__(self) -> None:
        self._hash = xxhash.xxh3_128()

    def add(self, bucket: Bucket) -> None:
        self._hash.update(bucket.digest.encode())

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def digest_of(pieces: Sequence[Piece], data: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> str:
    """Returns the hash of names, shapes, dtypes, places and bytes (XXH3, 128 bits: for faults, not for attacks)."""
    found = xxhash.xxh3_128(repr(tuple(pieces)).encode())
    found.update(data.data)
    return found.hexdigest()


def dtype_on_the_wire(trained: torch.dtype, wanted: torch.dtype | None) -> torch.dtype:
    """Returns the rollout's dtype for floating-point weights that it makes smaller, else the dtype that is trained.

    A rollout in a larger dtype casts what it gets by itself; None sends everything as it is trained.
    """
    smaller = wanted is not None and trained.is_floating_point and wanted.itemsize < trained.itemsize
    return wanted if smaller and wanted is not None else trained


def pack(
    weights: Iterable[tuple[str, torch.Tensor]],
    bucket_bytes: int,
    wanted: torch.dtype | None = None,
    pinned: bool = False,
    check: bool = True,
) -> Iterator[Bucket]:
    """Yields buckets of at most `bucket_bytes` bytes with the weights in their order, from any device.

    The next bucket overwrites the bytes of this one: a caller that keeps a bucket copies it, as `ray.put` does.

    Args:
        weights: (name, tensor) pairs; each tensor is read before the next one is asked for.
        bucket_bytes: 16 or more, so that a value of any dtype fits.
        wanted: dtype of the rollout, see `dtype_on_the_wire`.
        pinned: page-lock the bucket, which CUDA copies to several times as fast.
        check: give each bucket its digest.
    """
    buffer = torch.empty(bucket_bytes, dtype=torch.uint8, pin_memory=pinned)
    pieces: list[Piece] = []
    used = 0
    for name, weight in weights:
        dtype = dtype_on_the_wire(weight.dtype, wanted)
        values, taken = weight.detach().reshape(-1), 0
        while True:
            # rounded up to a whole value: a view of the bytes as this dtype needs the alignment
            start = -(-used // dtype.itemsize) * dtype.itemsize
            count = max(0, min(values.numel() - taken, (bucket_bytes - start) // dtype.itemsize))
            if count > 0 or (not values.numel() and start <= bucket_bytes):  # an empty one needs its place too
                used = start + count * dtype.itemsize
                _copy(buffer[start:used].view(dtype), values[taken : taken + count])
                offset, length = taken * dtype.itemsize, used - start
                pieces.append(Piece(name, tuple(weight.shape), dtype, offset, start, length))
                taken += count
                if taken == values.numel():
                    break
            yield _closed(pieces, buffer, used, check)
            pieces, used = [], 0
        del weight, values  # on a GPU there need not be room for two of the largest ones
    if pieces:
        yield _closed(pieces, buffer, used, check)


def _copy(place: torch.Tensor, values: torch.Tensor) -> None:
    """Casts and copies to host memory.

    On an accelerator the cast is made there: a blocking copy would fetch the larger values and cast them on the host.
    """
    place.copy_(values if values.device.type == "cpu" else values.to(place.dtype))


def _closed(pieces: list[Piece], buffer: torch.Tensor, used: int, check: bool) -> Bucket:
    data = buffer[:used].numpy()
    return Bucket(tuple(pieces), data, digest_of(pieces, data) if check else "")


class Unpacker:
    """Joiner of tensors on the receiver's device; it holds no more than the one that is not whole yet."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._name = ""
        self._unfinished: torch.Tensor | None = None
        self._filled = 0

    def tensors(self, bucket: Bucket) -> Iterator[tuple[str, torch.Tensor]]:
        """Yields the tensors that this bucket completes; raises `WeightsDiffer` where one is not continued."""
        source = _readable(bucket.data)
        for piece in bucket.pieces:
            tensor = self._begun(piece)
            end = piece.offset + piece.length
            # bytes of the tensor [nbytes]; contiguous as it is fresh, so that reshape makes no copy
            tensor.reshape(-1).view(torch.uint8)[piece.offset : end].copy_(source[piece.start :][: piece.length])
            if end < tensor.nbytes:
                self._name, self._unfinished, self._filled = piece.name, tensor, end
                continue
            self._unfinished = None
            yield piece.name, tensor

    def finish(self) -> None:
        """Raises `WeightsDiffer` where the stream ended within a tensor."""
        if self._unfinished is not None:
            raise WeightsDiffer(f"the stream ended {self._filled} bytes into {self._name}")

    def _begun(self, piece: Piece) -> torch.Tensor:
        if self._unfinished is None and piece.offset == 0:
            return torch.empty(piece.shape, dtype=piece.dtype, device=self._device)
        if self._unfinished is None or (piece.name, piece.offset) != (self._name, self._filled):
            raise WeightsDiffer(
                f"{piece.name} continues at byte {piece.offset}, which is not where the bytes received so far end"
            )
        return self._unfinished


def _readable(data: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> torch.Tensor:
    """Returns the bytes as a tensor without a copy; it must not be written to."""
    # they lie in Ray's shared memory, which is read-only: torch warns of that
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(data)
