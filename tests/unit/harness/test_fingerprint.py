"""Fingerprints: the same for a copy, another for other weights, and few bytes read of a large file."""

from __future__ import annotations

import shutil
from pathlib import Path

from codedance_verl.harness import fingerprint
from codedance_verl.harness.fingerprint import BLOCK_BYTES, BLOCKS, model_fingerprint


def model(folder: Path, weights: bytes) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def test_a_copy_has_the_same_and_changed_weights_another(tmp_path: Path) -> None:
    weights = bytes(range(256)) * (BLOCKS * BLOCK_BYTES // 128)  # twice as much as is read
    first = model(tmp_path / "first", weights)
    shutil.copytree(first, tmp_path / "copy")
    model(tmp_path / "changed", weights[:-1] + b"\x00")
    renamed = model(tmp_path / "renamed", weights)
    (renamed / "config.json").write_text('{"model_type": "other"}')
    found = [model_fingerprint(tmp_path / name) for name in ("first", "copy", "changed", "renamed")]
    assert found[0] == found[1]
    assert len({*found}) == 3


def test_blocks_are_spread_from_the_first_byte_to_the_last() -> None:
    size = 10**12
    starts = fingerprint._starts(size)
    assert (len(starts), starts[0], starts[-1] + BLOCK_BYTES) == (BLOCKS, 0, size)
    assert fingerprint._starts(BLOCK_BYTES + 1) == [0, BLOCK_BYTES]
    assert fingerprint._starts(0) == []
