"""Weights through engine and mailbox in one process: what is sent arrives, and what differs ends both sides."""

from __future__ import annotations

import asyncio
import dataclasses
import pickle
import weakref
from collections.abc import Callable, Generator, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.multiprocessing.reductions import reduce_tensor
from verl.workers.rollout.vllm_rollout.bucketed_weight_transfer import rebuild_ipc

from codedance_verl.verl_compat import object_store_transfer, weight_stream
from codedance_verl.verl_compat.mailbox import IN_FLIGHT, Mailbox
from codedance_verl.verl_compat.object_store_transfer import ObjectStoreTransfer
from codedance_verl.verl_compat.weight_stream import Bucket, WeightsDiffer


class _Call:
    """A mailbox's method as Ray would give it: `remote` starts it."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self.remote = method


class _Local:
    """A mailbox in this process, where a test can reach into what is sent."""

    def __init__(self, receivers: int) -> None:
        self.mailbox = Mailbox(receivers)

    def __getattr__(self, name: str) -> _Call:
        return _Call(getattr(self.mailbox, name))


class _Reference:
    """Stands for Ray's reference to a bucket: a copy of it that every receiver may await."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket: Bucket = pickle.loads(pickle.dumps(bucket))

    def __await__(self) -> Generator[Any, None, Bucket]:
        yield
        return self._bucket


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store_transfer.ray, "put", _Reference)


def _engines(
    mailbox: _Local, receivers: int, verify: bool = True, dtype: str | None = None
) -> tuple[ObjectStoreTransfer, list[ObjectStoreTransfer]]:
    sender = ObjectStoreTransfer(bucket_size=64, is_master=True, verify=verify, dtype=dtype)
    sender.init_process_group(mailbox, sends=True)
    others = [ObjectStoreTransfer(bucket_size=64, verify=verify) for _ in range(receivers)]
    for engine in others:
        engine.init_process_group(mailbox, sends=False)
    return sender, others


async def _received(engine: ObjectStoreTransfer) -> dict[str, torch.Tensor]:
    return {name: tensor async for name, tensor in engine.receive_weights(1)}


WEIGHTS = {
    "a": torch.tensor([0.0, -0.0, float("nan"), 1e-45]),
    "b": torch.arange(40, dtype=torch.bfloat16).reshape(5, 8).t(),
    "c": torch.tensor(3, dtype=torch.int64),
}


@pytest.mark.asyncio
@pytest.mark.usefixtures("stored")
async def test_receivers_confirm_the_very_bits() -> None:
    sender, receivers = _engines(_Local(2), receivers=2)
    metrics, *got = await asyncio.gather(sender.send_weights(iter(WEIGHTS.items()), 1), *map(_received, receivers))
    assert metrics["weight_transfer/bit_equal"] == 2
    for weights in got:
        assert list(weights) == list(WEIGHTS)
        for name, tensor in WEIGHTS.items():
            sent, arrived = (t.contiguous().reshape(-1).view(torch.uint8) for t in (tensor, weights[name]))
            assert torch.equal(sent, arrived)


@pytest.mark.asyncio
@pytest.mark.usefixtures("stored")
async def test_a_rollout_in_bfloat16_gets_half_the_bytes_and_values_rounded_once() -> None:
    """The larger of the two is more than a bucket of 64 bytes, in either dtype."""
    weights = {"embed": torch.randn(20, 30), "norm": torch.randn(7)}
    sender, receivers = _engines(_Local(1), receivers=1, dtype="bfloat16")
    metrics, got = await asyncio.gather(sender.send_weights(iter(weights.items()), 1), _received(receivers[0]))
    assert metrics["weight_transfer/mib"] * 2**20 == 2 * (20 * 30 + 7)
    assert all(torch.equal(got[name], tensor.to(torch.bfloat16)) for name, tensor in weights.items())


@pytest.mark.asyncio
async def test_other_actor_ranks_gather_every_tensor_and_copy_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor on the meta device has a shape and nothing to copy."""
    asked: list[str] = []

    def gathered() -> Iterator[tuple[str, torch.Tensor]]:
        for name in ("a", "b", "c"):
            asked.append(name)
            yield name, torch.empty(2**40, device="meta")

    bystander = ObjectStoreTransfer(bucket_size=64)
    bystander.init_process_group(None, sends=False)
    assert await bystander.send_weights(gathered(), 1) == {}
    assert asked == ["a", "b", "c"]


def test_verl_passes_no_large_tensor_of_host_memory_on_to_vllm() -> None:
    """Why they must: it puts the receiver's device at a place of the handle that only a CUDA tensor's has."""
    with pytest.raises(IndexError):
        rebuild_ipc(reduce_tensor(torch.zeros(3)), 0)


@pytest.mark.asyncio
@pytest.mark.usefixtures("stored")
async def test_weights_arrive_on_the_device_of_the_receiver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store_transfer, "get_device_name", lambda: "meta")
    monkeypatch.setattr(object_store_transfer, "get_device_id", lambda: 0)
    sender, receivers = _engines(_Local(1), receivers=1)
    _, got = await asyncio.gather(sender.send_weights(iter(WEIGHTS.items()), 1), _received(receivers[0]))
    assert {tensor.device.type for tensor in got.values()} == {"meta"}


@pytest.mark.asyncio
async def test_a_bucket_is_let_go_before_the_next_one_is_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    arrived: list[weakref.ref[Bucket]] = []

    class Copied(_Reference):
        def __await__(self) -> Generator[Any, None, Bucket]:
            assert [bucket() for bucket in arrived] == [None] * len(arrived)
            yield
            bucket: Bucket = pickle.loads(pickle.dumps(self._bucket))
            arrived.append(weakref.ref(bucket))
            return bucket

    monkeypatch.setattr(object_store_transfer.ray, "put", Copied)
    sender, receivers = _engines(_Local(1), receivers=1)
    both = asyncio.gather(sender.send_weights(iter(WEIGHTS.items()), 1), _received(receivers[0]))
    await asyncio.wait_for(both, timeout=20)
    assert len(arrived) > 1


def _with_a_flipped_bit(bucket: Bucket) -> Bucket:
    data = np.array(bucket.data)
    data[7] ^= 128  # the sign of a zero
    return dataclasses.replace(bucket, data=data)


def _under_another_name(bucket: Bucket) -> Bucket:
    first, *rest = bucket.pieces
    return dataclasses.replace(bucket, pieces=(dataclasses.replace(first, name="z"), *rest))


def _without_its_last_tensor(bucket: Bucket) -> Bucket:
    """With a digest that is right: the chain over all buckets tells."""
    pieces = bucket.pieces[:1]
    data = bucket.data[: pieces[0].length]
    return Bucket(pieces, data, weight_stream.digest_of(pieces, data))


@pytest.mark.asyncio
@pytest.mark.parametrize("change", [_with_a_flipped_bit, _under_another_name, _without_its_last_tensor])
async def test_a_difference_ends_the_update_on_both_sides(
    change: Callable[[Bucket], Bucket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is found in the first bucket; the sender, who has many more to send than may wait, ends at once."""

    def altered(bucket: Bucket) -> _Reference:
        return _Reference(change(bucket) if bucket.pieces[0].name == "a" else bucket)

    weights = {"a": WEIGHTS["a"], "b": torch.arange(6), "later": torch.zeros(500)}
    monkeypatch.setattr(object_store_transfer.ray, "put", altered)
    sender, receivers = _engines(_Local(1), receivers=1)
    results = await asyncio.wait_for(
        asyncio.gather(sender.send_weights(iter(weights.items()), 1), _received(receivers[0]), return_exceptions=True),
        timeout=20,
    )
    assert [type(result) for result in results] == [WeightsDiffer, WeightsDiffer]


@pytest.mark.asyncio
@pytest.mark.usefixtures("stored")
async def test_nothing_of_a_bucket_that_differs_reaches_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store_transfer.ray, "put", lambda bucket: _Reference(_with_a_flipped_bit(bucket)))
    sender, (receiver,) = _engines(_Local(1), receivers=1)
    sending = asyncio.create_task(sender.send_weights(iter(WEIGHTS.items()), 1))
    with pytest.raises(WeightsDiffer, match="step 1: bucket 0"):
        await anext(receiver.receive_weights(1))
    with pytest.raises(WeightsDiffer):
        await sending


@pytest.mark.asyncio
async def test_a_slow_receiver_holds_the_sender_back() -> None:
    mailbox = Mailbox(receivers=2)
    for item in range(IN_FLIGHT):
        await mailbox.put([item], timeout_s=1)
    third = asyncio.create_task(mailbox.put(["third"], timeout_s=30))
    await mailbox.get(0, timeout_s=1)
    await asyncio.sleep(0)
    assert not third.done(), "one of two receivers has the first one"
    await mailbox.get(0, timeout_s=1)
    await asyncio.wait_for(third, 1)
    with pytest.raises(TimeoutError):
        await mailbox.put(["fourth"], timeout_s=0.01)


@pytest.mark.asyncio
@pytest.mark.usefixtures("stored")
async def test_without_the_check_nobody_waits_for_a_confirmation() -> None:
    sender, receivers = _engines(_Local(1), receivers=1, verify=False)
    metrics, got = await asyncio.gather(sender.send_weights(iter(WEIGHTS.items()), 1), _received(receivers[0]))
    assert metrics == {} and list(got) == list(WEIGHTS)
