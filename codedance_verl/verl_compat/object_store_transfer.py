"""Weight transfer from the actor group to a separate rollout group through Ray's object store.

Registered with verl's `CheckpointEngineRegistry` as ``ray_object_store``. It needs no GPU, crosses nodes (Ray moves
the objects), and a slow receiver holds the sender back (`mailbox.IN_FLIGHT` buckets). On GPU clusters verl's `nccl`
engine is faster. Weights travel as the buckets of `weight_stream`. Both sides hash every bucket; a difference ends
the update with an error on both, before anything of that bucket reaches the model.
"""

from __future__ import annotations

import collections
import functools
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import ray
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from verl.checkpoint_engine.base import CheckpointEngine, CheckpointEngineRegistry
from verl.utils.device import get_device_id, get_device_name
from verl.utils.torch_dtypes import PrecisionType

from codedance_verl.verl_compat.mailbox import EndOfWeights, Mailbox
from codedance_verl.verl_compat.weight_stream import Bucket, Chain, Unpacker, WeightsDiffer, digest_of, pack

BACKEND = "ray_object_store"
TRANSFER_TIMEOUT_S = 600.0
"""Longest wait of one side for the other, for each bucket."""


@functools.lru_cache(maxsize=8)
def _mailbox(receivers: int, _job_id: str, node_id: str) -> Any:
    """Returns the mailbox of this process's updates: one for all, as an actor starts slower than a small update takes.

    It is on the node of this process, so that the loss of another node cannot end it. The cache key has the node's id
    beside the job's: the first job of every cluster has the same id, a node's id is never used twice.
    """
    here = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return ray.remote(Mailbox).options(num_cpus=0, scheduling_strategy=here).remote(receivers)


@CheckpointEngineRegistry.register(BACKEND)
class ObjectStoreTransfer(CheckpointEngine):  # type: ignore[misc]  # verl ships no types
    """Checkpoint engine of verl's (see `verl.checkpoint_engine.base.CheckpointEngine`).

    Args:
        bucket_size: bytes per bucket, from `rollout.checkpoint_engine.update_weights_bucket_megabytes`.
        is_master: true on actor rank 0, which creates the mailbox and sends; other actor ranks only take part in
            gathering the shards.
        verify: compare what arrives with what was sent, bit for bit, at every transfer.
        dtype: of the rollout, in verl's words; the sender casts to it, see `weight_stream.dtype_on_the_wire`.

    The last two stand documented in the configuration, `rollout.checkpoint_engine.engine_kwargs.ray_object_store`.
    """

    def __init__(
        self, bucket_size: int, is_master: bool = False, verify: bool = True, dtype: str | None = None
    ) -> None:
        self._bucket_size = bucket_size
        self._is_master = is_master
        self._verify = verify
        self._dtype: torch.dtype | None = None if dtype is None else PrecisionType.to_dtype(dtype)
        self._mailbox: Any = None

    def prepare(self) -> dict[str, Any] | None:
        return {"update": uuid.uuid4().hex} if self._is_master else None

    @classmethod
    def build_topology(
        cls, actor_wg_world_size: int, rollout_world_size: int, metadata: list[dict[str, Any]]
    ) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
        context = ray.get_runtime_context()
        mailbox = _mailbox(rollout_world_size, context.get_job_id(), context.get_node_id())
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
        """Sends all weights. Returns metrics of the transfer; raises `WeightsDiffer` when a receiver got others."""
        if not self._sends:
            # Materialising a sharded tensor is a collective operation, so every rank walks the generator to its end.
            collections.deque(weights, maxlen=0)
            return {}
        chain, sent_bytes = Chain(), 0
        pinned = get_device_name() == "cuda"
        for bucket in pack(weights, self._bucket_size, self._dtype, pinned=pinned, check=self._verify):
            chain.add(bucket)
            sent_bytes += sum(piece.length for piece in bucket.pieces)
            # `ray.put` copies: the next bucket overwrites the bytes of this one
            await self._mailbox.put.remote([ray.put(bucket)], TRANSFER_TIMEOUT_S)
        await self._mailbox.put.remote([EndOfWeights(chain.hexdigest())], TRANSFER_TIMEOUT_S)
        if not self._verify:
            return {}
        equal = await self._mailbox.confirmed.remote(TRANSFER_TIMEOUT_S)
        if not all(equal):
            raise WeightsDiffer(f"step {global_steps}: a rollout worker received other weights than the actor sent")
        return {"weight_transfer/mib": sent_bytes / 2**20, "weight_transfer/bit_equal": float(len(equal))}

    async def receive_weights(self, global_steps: int | None = None) -> AsyncIterator[tuple[str, torch.Tensor]]:
        """Yields the weights on this process's device; raises `WeightsDiffer` where they are not those sent.

        On a GPU they must lie there: verl 0.9.1 hands a tensor above its bucket to vLLM by its CUDA handle.
        """
        unpacker = Unpacker(_device())
        try:
            async for bucket in self._buckets():
                for name, tensor in unpacker.tensors(bucket):
                    yield name, tensor
                del bucket  # while the next one is awaited, its memory is free for it
            unpacker.finish()
        except WeightsDiffer as error:
            await self._mailbox.confirm.remote(False)
            raise WeightsDiffer(f"step {global_steps}: {error}") from error
        if self._verify:
            await self._mailbox.confirm.remote(True)

    async def _buckets(self) -> AsyncIterator[Bucket]:
        """Yields the buckets in their order, each checked against the hash of the one sent."""
        chain, index = Chain(), 0
        while True:
            (item,) = await self._mailbox.get.remote(index, TRANSFER_TIMEOUT_S)
            if isinstance(item, EndOfWeights):
                break
            bucket: Bucket = await item
            if self._verify and digest_of(bucket.pieces, bucket.data) != bucket.digest:
                raise WeightsDiffer(f"bucket {index} received is not the one sent")
            chain.add(bucket)
            yield bucket
            del bucket, item  # a reference would keep the bucket in the object store
            index += 1
        if chain.hexdigest() != item.fingerprint:
            raise WeightsDiffer(f"the {index} buckets received are not those sent")


def _device() -> torch.device:
    """Returns the device of this process, on which verl's vLLM worker beside it has its weights."""
    name = get_device_name()
    return torch.device(name) if name == "cpu" else torch.device(name, get_device_id())
