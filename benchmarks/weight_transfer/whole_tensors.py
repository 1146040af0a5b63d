"""The engine that ours is measured against: whole tensors as they are trained, pickled, copied by every rank.

It has our engine's mailbox, limit of buckets in flight and hash, so that the way of packing alone makes the difference.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import ray
import torch
import xxhash

from codedance_verl.verl_compat.mailbox import EndOfWeights
from codedance_verl.verl_compat.object_store_transfer import TRANSFER_TIMEOUT_S, ObjectStoreTransfer
from codedance_verl.verl_compat.weight_stream import WeightsDiffer

Tensors = list[tuple[str, torch.Tensor]]


class WholeTensors(ObjectStoreTransfer):
    """Sends lists of (name, tensor) of at most `bucket_size` bytes; a tensor above it goes alone."""

    async def send_weights(
        self, weights: Iterator[tuple[str, torch.Tensor]], global_steps: int | None = None
    ) -> dict[str, float]:
        found, size = xxhash.xxh3_128(), 0
        for tensors in _grouped(weights, self._bucket_size):
            if not self._sends:
                continue
            for name, tensor in tensors:
                _add(found, name, tensor)
                size += tensor.nbytes
            await self._mailbox.put.remote([ray.put(tensors)], TRANSFER_TIMEOUT_S)
        if not self._sends:
            return {}
        await self._mailbox.put.remote([EndOfWeights(found.hexdigest())], TRANSFER_TIMEOUT_S)
        equal = await self._mailbox.confirmed.remote(TRANSFER_TIMEOUT_S)
        return {"weight_transfer/mib": size / 2**20, "weight_transfer/bit_equal": float(sum(equal))}

    async def receive_weights(self, global_steps: int | None = None) -> AsyncIterator[tuple[str, torch.Tensor]]:
        found, index = xxhash.xxh3_128(), 0
        while True:
            (item,) = await self._mailbox.get.remote(index, TRANSFER_TIMEOUT_S)
            if isinstance(item, EndOfWeights):
                break
            for name, tensor in await item:
                received = tensor.clone()
                _add(found, name, received)
                yield name, received
            index += 1
        await self._mailbox.confirm.remote(found.hexdigest() == item.fingerprint)
        if found.hexdigest() != item.fingerprint:
            raise WeightsDiffer("the weights received are not those sent")


def _grouped(weights: Iterator[tuple[str, torch.Tensor]], bucket_bytes: int) -> Iterator[Tensors]:
    group: Tensors = []
    size = 0
    for name, tensor in weights:
        if group and size + tensor.nbytes > bucket_bytes:
            yield group
            group, size = [], 0
        group.append((name, tensor.detach().to("cpu", copy=True)))
        size += tensor.nbytes
    if group:
        yield group


def _add(found: xxhash.xxh3_128, name: str, tensor: torch.Tensor) -> None:
    found.update(f"{name}\0{tuple(tensor.shape)}\0{tensor.dtype}\0".encode())
    found.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
