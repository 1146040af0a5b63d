"""Pixels through verl's real transfer queue: an eighth of the bytes, and the same bits on the trainer's side."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import transfer_queue as tq
from transformers import Qwen2VLImageProcessor
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

from benchmarks import pixel_queue
from codedance_verl.rollout.output import GroupImages
from codedance_verl.verl_compat.pixel_bytes import layout_of
from codedance_verl.verl_compat.pixel_inputs import FIELD, with_pixel_values

pytestmark = pytest.mark.slow
PIXELS = 200 * 200
AN_EIGHTH = 0.13
"""With the values of the levels beside the bytes, 3 kB a rollout."""


@pytest.fixture(scope="module")
def queue() -> Iterator[None]:
    pixel_queue.start_queue(units=2)
    yield
    pixel_queue.stop_queue()


@pytest.mark.parametrize("family", sorted(pixel_queue.PATCHES))
def test_an_eighth_of_the_bytes_brings_the_same_values(queue: None, family: str) -> None:
    found = pixel_queue.measure(rollouts=6, size=3, pixels=PIXELS, family=family)
    assert found["rollouts_that_differ"] == 0
    assert 0.12 < found["bytes_ratio"] < AN_EIGHTH
    assert found["bytes"]["put_s"] > 0 and found["floats"]["get_s"] > 0


def test_a_checkpoint_of_the_queue_holds_bytes_and_brings_the_values_back(queue: None, tmp_path: Path) -> None:
    """verl saves the queue's content with each checkpoint of the asynchronous modes."""
    processor = Qwen2VLImageProcessor(patch_size=14)
    (held,) = pixel_queue.groups(rollouts=4, size=4, pixels=PIXELS)
    layouts = {"floats": None, "bytes": layout_of(processor)}
    keys = [f"a_{number}_0" for number in range(len(held))]
    for name, layout in layouts.items():
        images = GroupImages(held, pixel_queue.prepare_by(processor), layout)
        rows = [{FIELD: images.made(each), "n": number} for number, each in enumerate(held)]
        tags: list[dict[str, Any]] = [{"status": "success"} for _ in keys]
        tq.kv_batch_put(keys=keys, partition_id="train", fields=list_of_dict_to_tensordict(rows), tags=tags)
        tq.save_checkpoint(tmp_path / name)
        tq.kv_clear(keys=keys, partition_id="train")
    floats, packed = (_bytes_in(tmp_path / name) for name in layouts)
    assert packed < 0.15 * floats
    found = []
    for name in layouts:
        tq.load_checkpoint(tmp_path / name)
        found.append(with_pixel_values(tq.kv_batch_get(keys=keys, partition_id="train"))[FIELD])
    assert pixel_queue.differing(*found) == 0
    tq.kv_clear(keys=keys, partition_id="train")


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_the_benchmark_writes_what_it_found(tmp_path: Path) -> None:
    output = tmp_path / "found.json"
    small = ["--rollouts", "4", "--group-size", "2", "--pixels", str(PIXELS), "--output", str(output)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.pixel_queue", *small],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(output.read_text())
    assert found["bytes_ratio"] < AN_EIGHTH and found["rollouts"] == 4
    assert found["bytes"]["queue_bytes"] < found["floats"]["queue_bytes"]
