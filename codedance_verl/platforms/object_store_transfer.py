"""Weight transfer from the actor group to a separate rollout group through Ray's object store.

Registered with verl's `CheckpointEngineRegistry` as ``ray_object_store``. It needs no GPU, crosses nodes (Ray moves
the objects), and a slow receiver holds the sender back (`mailbox.IN_FLIGHT` buckets). On GPU clusters verl's `nccl`
engine is the faster choice. Both sides hash what they send and receive; a difference ends the update with an
error on both.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import ray
import torch
import xxhash
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from verl.checkpoint_engine.base import CheckpointEngine, CheckpointEngineRegistry

from codedance_verl.platforms.mailbox import EndOfWeights, Mailbox

BACKEND = "ray_object_store"
TRANSFER_TIMEOUT_S = 600.0
"""How long one side waits for the other, bucket by bucket."""

Bucket = list[tuple[str, torch.Tensor]]


class WeightsDiffer(RuntimeError):
    """What a rollout worker received is not what the actor sent."""


class Fingerprint:
    """A hash of tensors in their order: names, shapes, types, bytes (XXH3, 128 bits; against faults, not attacks)."""

    def __init__(self) -> None:
        self._hash = xxhash.xxh3_128()
        self.tensor_bytes = 0

    def add(self, name: str, tensor: torch.Tensor) -> None:
        self._hash.update(f"{name}\0{tuple(tensor.shape)}\0{tensor.dtype}\0".encode())
        self._hash.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        self.tensor_bytes += tensor.nbytes

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


@functools.lru_cache(maxsize=8)
def _mailbox(receivers: int, _job_id: str) -> Any:
    """The mailbox of this process's updates: one for all, as starting an actor takes longer than a small update.

    On the node of this process, so that the loss of another node cannot take it away.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(Mailbox).options(num_cpus=0, scheduling_strategy=here).remote(receivers)


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
        verify: compare what arrives with what was sent, bit for bit, at every transfer. From the configuration:
            `rollout.checkpoint_engine.engine_kwargs.ray_object_store.verify`, where it stands documented.
    """

    def __init__(self, bucket_size: int, is_master: bool = False, verify: bool = True, **_: Any) -> None:
        self._bucket_size = bucket_size
        self._is_master = is_master
        self._verify = verify
        self._mailbox: Any = None

    def prepare(self) -> dict[str, Any] | None:
        return {"update": uuid.uuid4().hex} if self._is_master else None

    @classmethod
    def build_topology(
        cls, actor_wg_world_size: int, rollout_world_size: int, metadata: list[dict[str, Any]]
    ) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
        mailbox = _mailbox(rollout_world_size, ray.get_runtime_context().get_job_id())
        ray.get(mailbox.begin.remote(), timeout=TRANSFER_TIMEOUT_S)
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

    async def send_weights(
        self, weights: Iterator[tuple[str, torch.Tensor]], global_steps: int | None = None
    ) -> dict[str, float]:
        """Send all weights. Returns metrics of the transfer; raises `WeightsDiffer` when a receiver got others."""
        # Every rank walks the generator: materialising a sharded tensor is a collective operation.
        fingerprint = Fingerprint()
        for bucket in _buckets(weights, self._bucket_size):
            if self._sends:
                for name, tensor in bucket if self._verify else ():
                    fingerprint.add(name, tensor)
                await self._mailbox.put.remote([ray.put(bucket)], TRANSFER_TIMEOUT_S)
        if not self._sends:
            return {}
        end = EndOfWeights(fingerprint.hexdigest() if self._verify else "")
        await self._mailbox.put.remote([end], TRANSFER_TIMEOUT_S)
        if not self._verify:
            return {}
        equal = await self._mailbox.confirmed.remote(TRANSFER_TIMEOUT_S)
        if not all(equal):
            raise WeightsDiffer(f"step {global_steps}: a rollout worker received other weights than the actor sent")
        return {"weight_transfer/mib": fingerprint.tensor_bytes / 2**20, "weight_transfer/bit_equal": float(len(equal))}

    async def receive_weights(self, global_steps: int | None = None) -> AsyncIterator[tuple[str, torch.Tensor]]:
        """Yield the weights as they were sent; raises `WeightsDiffer` behind the last one when they are others."""
        fingerprint = Fingerprint()
        index = 0
        while True:
            (item,) = await self._mailbox.get.remote(index, TRANSFER_TIMEOUT_S)
            if isinstance(item, EndOfWeights):
                break
            for name, tensor in await item:
                received = tensor.clone()  # objects from the store are read-only
                if self._verify:
                    fingerprint.add(name, received)
                yield name, received
            index += 1
        if self._verify:
            equal = fingerprint.hexdigest() == item.fingerprint
            await self._mailbox.confirm.remote(equal)
            if not equal:
                raise WeightsDiffer(f"step {global_steps}: the weights received are not those the actor sent")
