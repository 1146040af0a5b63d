from __future__ import annotations

import torch

from codedance_verl.platforms.object_store_transfer import _buckets


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
