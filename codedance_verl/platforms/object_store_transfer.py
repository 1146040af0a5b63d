"""Weight transfer from the actor group to a separate rollout group through Ray's object store.

Registered with verl's `CheckpointEngineRegistry` as ``ray_object_store``. It needs no GPU, crosses nodes (Ray moves
the objects), and keeps one bucket in flight per receiver. On GPU clusters verl's `nccl` engine is the faster choice.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import ray
import torch
from verl.checkpoint_engine.base import CheckpointEngine, CheckpointEngineRegistry

BACKEND = "ray_object_store"
RECEIVE_TIMEOUT_S = 600.0
END_OF_WEIGHTS = "end"

Bucket = list[tuple[str, torch.Tensor]]


class _Mailbox:
    """Holds references to the buckets of one weight update until every receiver has taken each of them."""

    def __init__(self, receivers: int) -> None:
        self._receivers = receivers
        self._items: list[Any] = []
        self._taken: list[int] = []
        self._changed = asyncio.Condition()

    async def put(self, item: list[Any]) -> None:
        """`item` is a one-element list with an ObjectRef (wrapped, so that Ray does not resolve it) or the end mark."""
        async with self._changed:
            self._items.append(item)
            self._taken.append(0)
            self._changed.notify_all()

    async def get(self, index: int, timeout_s: float) -> list[Any]:
        async with self._changed:
            await asyncio.wait_for(self._changed.wait_for(lambda: index < len(self._items)), timeout_s)
            item = self._items[index]
            self._taken[index] += 1
            if self._taken[index] == self._receivers:
                self._items[index] = None  # lets the object store drop the bucket
            return item  # type: ignore[no-any-return]


def _buckets(weights: Iterator[tuple[str, torch.Tensor]], bucket_bytes: int) -> Iterator[Bucket]:
    """Group (name, tensor) pairs into lists of at most `bucket_bytes` bytes (one larger tensor makes its own)."""
    bucket: Bucket = []
    size = 0
    for name, tensor in weights:
        tensor_bytes = tensor.numel() * tensor.element_size()
        if bucket and size + tensor_bytes > bucket_bytes:
            yield bucket
            bucket, size = [], 0
        bucket.append((name, tensor.detach().to("cpu", copy=True)))
        size += tensor_bytes
    if bucket:
        yield bucket


@CheckpointEngineRegistry.register(BACKEND)
class ObjectStoreTransfer(CheckpointEngine):  # type: ignore[misc]  # verl ships no types
    """verl checkpoint engine (see `verl.checkpoint_engine.base.CheckpointEngine`).

    Args:
        bucket_size: bytes per bucket, from `rollout.checkpoint_engine.update_weights_bucket_megabytes`.
        is_master: true on actor rank 0, which creates the mailbox and sends; other actor ranks only take part in
            gathering the shards.
    """

    def __init__(self, bucket_size: int, is_master: bool = False, **_: Any) -> None:
        self._bucket_size = bucket_size
        self._is_master = is_master
        self._mailbox: Any = None

    def prepare(self) -> dict[str, Any] | None:
        return {"update": uuid.uuid4().hex} if self._is_master else None

    @classmethod
    def build_topology(
        cls, actor_wg_world_size: int, rollout_world_size: int, metadata: list[dict[str, Any]]
    ) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
        mailbox = ray.remote(_Mailbox).options(num_cpus=0).remote(rollout_world_size)
        actors = {
            "mailbox": [mailbox] * actor_wg_world_size,
            "sends": [rank == 0 for rank in range(actor_wg_world_size)],
        }
        rollouts = {"mailbox": [mailbox] * rollout_world_size, "sends": [False] * rollout_world_size}
        return actors, rollouts

    def init_process_group(self, mailbox: Any, sends: bool) -> None:
        self._mailbox, self._sends = mailbox, sends

    def finalize(self) -> None:
        self._mailbox = None

    async def send_weights(self, weights: Iterator[tuple[str, torch.Tensor]], global_steps: int | None = None) -> None:
        # Every rank walks the generator: materialising a sharded tensor is a collective operation.
        for bucket in _buckets(weights, self._bucket_size):
            if self._sends:
                await self._mailbox.put.remote([ray.put(bucket)])
        if self._sends:
            await self._mailbox.put.remote([END_OF_WEIGHTS])

    async def receive_weights(self, global_steps: int | None = None) -> AsyncIterator[tuple[str, torch.Tensor]]:
        index = 0
        while True:
            (item,) = await self._mailbox.get.remote(index, RECEIVE_TIMEOUT_S)
            if item == END_OF_WEIGHTS:
                return
            for name, tensor in await item:
                yield name, tensor.clone()  # objects from the store are read-only
            index += 1
