"""Weights packed into buckets come out as they went in, cast to the rollout's dtype, however they are cut."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codedance_verl.verl_compat.weight_stream import (
    Bucket,
    Chain,
    Unpacker,
    WeightsDiffer,
    digest_of,
    dtype_on_the_wire,
    pack,
)

CPU = torch.device("cpu")
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool, torch.complex128)


def sent(bucket: Bucket) -> Bucket:
    """A bucket as it arrives: a copy, made before the next one is packed."""
    arrived: Bucket = pickle.loads(pickle.dumps(bucket))
    arrived.data.setflags(write=False)  # like what lies in Ray's object store
    return arrived


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def through(
    weights: dict[str, torch.Tensor], bucket_bytes: int, wanted: torch.dtype | None = None
) -> Iterator[tuple[str, torch.Tensor]]:
    unpacker = Unpacker(CPU)
    for bucket in map(sent, pack(weights.items(), bucket_bytes, wanted)):
        assert digest_of(bucket.pieces, bucket.data) == bucket.digest
        assert bucket.data.nbytes <= bucket_bytes
        yield from unpacker.tensors(bucket)
    unpacker.finish()


def anything(shape: tuple[int, ...], dtype: torch.dtype, numbers: torch.Generator) -> torch.Tensor:
    """Any bits at all, NaN among them."""
    most = 2 if dtype == torch.bool else 256
    data = torch.randint(0, most, (*shape, dtype.itemsize), dtype=torch.uint8, generator=numbers)
    return data.view(dtype).squeeze(-1)


SHAPES = st.lists(st.integers(0, 5), max_size=3).map(tuple)


@settings(max_examples=200, deadline=None)
@given(
    layout=st.lists(st.tuples(SHAPES, st.sampled_from(DTYPES)), max_size=6),
    bucket_bytes=st.integers(16, 200),
    seed=st.integers(0, 2**31),
)
def test_weights_come_out_bit_for_bit_however_small_the_bucket_is(
    layout: list[tuple[tuple[int, ...], torch.dtype]], bucket_bytes: int, seed: int
) -> None:
    numbers = torch.Generator().manual_seed(seed)
    weights = {f"w{index}": anything(shape, dtype, numbers) for index, (shape, dtype) in enumerate(layout)}
    received = list(through(weights, bucket_bytes))
    assert [name for name, _ in received] == list(weights)
    for name, tensor in received:
        assert (tensor.dtype, tensor.shape) == (weights[name].dtype, weights[name].shape)
        assert bits(tensor) == bits(weights[name])


def test_an_empty_tensor_behind_a_full_bucket_begins_the_next_one() -> None:
    weights = {"full": torch.arange(17, dtype=torch.uint8), "none": torch.empty(0, dtype=torch.int64)}
    first, second = map(sent, pack(weights.items(), 17))
    assert [piece.name for piece in first.pieces] == ["full"] and second.pieces[0].length == 0
    assert [(name, tensor.shape, tensor.dtype) for name, tensor in through(weights, 17)] == [
        ("full", (17,), torch.uint8),
        ("none", (0,), torch.int64),
    ]


def test_a_tensor_larger_than_a_bucket_is_cut_and_nothing_larger_than_a_bucket_is_held() -> None:
    weight = torch.arange(1000, dtype=torch.float32).reshape(10, 100)
    buckets = list(map(sent, pack([("small", torch.ones(3)), ("large", weight)], 400)))
    assert max(bucket.data.nbytes for bucket in buckets) <= 400
    assert sum(piece.name == "large" for bucket in buckets for piece in bucket.pieces) > 1
    (_, (name, received)) = through({"small": torch.ones(3), "large": weight}, 400)
    assert name == "large" and torch.equal(received, weight)


@pytest.mark.parametrize(
    ("trained", "wanted", "wire"),
    [
        (torch.float32, torch.bfloat16, torch.bfloat16),
        (torch.float32, torch.float16, torch.float16),
        (torch.float32, torch.float32, torch.float32),
        (torch.float32, None, torch.float32),
        (torch.bfloat16, torch.float32, torch.bfloat16),
        (torch.bfloat16, torch.float16, torch.bfloat16),
        (torch.int64, torch.bfloat16, torch.int64),
    ],
)
def test_weights_go_over_in_the_rollouts_dtype_where_that_is_smaller(
    trained: torch.dtype, wanted: torch.dtype | None, wire: torch.dtype
) -> None:
    assert dtype_on_the_wire(trained, wanted) == wire


def test_the_cast_rounds_as_torch_does_also_across_a_cut() -> None:
    weight = torch.randn(997, generator=torch.Generator().manual_seed(1)).reshape(997, 1).t()
    ((_, received),) = through({"w": weight}, 64, torch.bfloat16)
    assert received.dtype == torch.bfloat16 and bits(received) == bits(weight.to(torch.bfloat16))


def test_a_weight_is_let_go_before_the_next_one_is_gathered() -> None:
    """Each has its memory from an array that lives as long as the tensor's storage."""
    arrays: list[weakref.ref[Any]] = []

    def gathered() -> Iterator[tuple[str, torch.Tensor]]:
        for index in range(3):
            assert [array() for array in arrays] == [None] * index
            array = np.ones((4, 2), dtype=np.float32)
            arrays.append(weakref.ref(array))
            tensor = torch.from_numpy(array).t()
            del array
            yield f"w{index}", tensor
            del tensor

    assert len(list(pack(gathered(), 20))) > 3


def test_a_flipped_bit_a_name_and_a_shape_change_the_digest() -> None:
    (bucket,) = map(sent, pack([("w", torch.zeros(4))], 64))
    flipped = np.array(bucket.data)
    flipped[3] ^= 1
    assert digest_of(bucket.pieces, flipped) != bucket.digest
    for change in ({"name": "v"}, {"shape": (2, 2)}, {"dtype": torch.int32}):
        pieces = (dataclasses.replace(bucket.pieces[0], **change),)
        assert digest_of(pieces, bucket.data) != bucket.digest


def test_a_bucket_that_is_lost_doubled_or_out_of_order_changes_the_chain() -> None:
    buckets = list(map(sent, pack([("w", torch.arange(12.0))], 16)))
    orders = [buckets, buckets[1:], [buckets[0], *buckets], [buckets[1], buckets[0], buckets[2]]]
    chains = [Chain() for _ in orders]
    for chain, order in zip(chains, orders, strict=True):
        for bucket in order:
            chain.add(bucket)
    assert len({chain.hexdigest() for chain in chains}) == len(orders)


def test_a_tensor_that_is_not_continued_or_not_ended_is_an_error() -> None:
    first, second, third = map(sent, pack([("w", torch.arange(12.0))], 16))
    skipping = Unpacker(CPU)
    assert not list(skipping.tensors(first))
    with pytest.raises(WeightsDiffer, match="w continues at byte 32"):
        list(skipping.tensors(third))
    headless = Unpacker(CPU)
    with pytest.raises(WeightsDiffer):
        list(headless.tensors(second))
    short = Unpacker(CPU)
    for bucket in (first, second):
        assert not list(short.tensors(bucket))
    with pytest.raises(WeightsDiffer, match="ended 32 bytes into w"):
        short.finish()


def test_what_is_received_may_be_written_to_and_is_on_the_receivers_device() -> None:
    (bucket,) = map(sent, pack([("w", torch.ones(4))], 64))
    ((_, tensor),) = Unpacker(CPU).tensors(bucket)
    tensor += 1
    assert np.array(copy.copy(bucket.data)).view(np.float32).tolist() == [1, 1, 1, 1]
    ((_, elsewhere),) = Unpacker(torch.device("meta")).tensors(bucket)
    assert elsewhere.device.type == "meta"
