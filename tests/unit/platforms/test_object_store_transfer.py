from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Any

import pytest
import torch

from codedance_verl.platforms import object_store_transfer
from codedance_verl.platforms.mailbox import IN_FLIGHT, Mailbox
from codedance_verl.platforms.object_store_transfer import (
    Bucket,
    ObjectStoreTransfer,
    WeightsDiffer,
    _buckets,
)


def test_buckets_keep_order_and_values_within_the_bound() -> None:
    weights = [(f"w{i}", torch.full((n,), float(i))) for i, n in enumerate([4, 4, 100, 1, 8])]
    buckets = list(_buckets(iter(weights), bucket_bytes=40))
    assert [name for bucket in buckets for name, _ in bucket] == [name for name, _ in weights]
    for bucket in buckets:
        assert len(bucket) == 1 or sum(t.numel() * 4 for _, t in bucket) <= 40
    received = {name: tensor for bucket in buckets for name, tensor in bucket}
    assert all(torch.equal(received[name], tensor) for name, tensor in weights)


def test_buckets_are_copies() -> None:
    weight = torch.zeros(3)
    (bucket,) = _buckets(iter([("w", weight)]), bucket_bytes=1024)
    weight += 1
    assert torch.equal(bucket[0][1], torch.zeros(3))


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
    """Stands for Ray's reference to a bucket: every receiver may await it."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def __await__(self) -> Generator[Any, None, Bucket]:
        yield
        return self._bucket


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store_transfer.ray, "put", _Reference)


def _engines(
    mailbox: _Local, receivers: int, verify: bool = True
) -> tuple[ObjectStoreTransfer, list[ObjectStoreTransfer]]:
    sender = ObjectStoreTransfer(bucket_size=64, is_master=True, verify=verify)
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
@pytest.mark.parametrize("change", ["sign of zero", "name", "a tensor less"])
async def test_a_difference_of_one_bit_ends_the_update_on_both_sides(
    change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def altered(bucket: Bucket) -> _Reference:
        name, tensor = bucket[0]
        if name != "a":
            return _Reference(bucket)
        if change == "sign of zero":
            return _Reference([(name, tensor.index_fill(0, torch.tensor([1]), 0.0)), *bucket[1:]])
        return _Reference([("z", tensor), *bucket[1:]] if change == "name" else bucket[1:])

    monkeypatch.setattr(object_store_transfer.ray, "put", altered)
    sender, receivers = _engines(_Local(1), receivers=1)
    results = await asyncio.gather(
        sender.send_weights(iter(WEIGHTS.items()), 1), _received(receivers[0]), return_exceptions=True
    )
    assert [type(result) for result in results] == [WeightsDiffer, WeightsDiffer]


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
