"""Pixels through verl's transfer queue as floats and as bytes: `python -m benchmarks.pixel_queue [--rollouts 16]`.

Groups of rollouts, each with the image of its question and one of its own, about 1 Mpx each, are prepared, put into a
real queue, read twice as a training step does (old log-probs, update), unpacked as the engine does, and cleared. Both
ways take turns in one run, a group at a time, so that memory stays small whatever the batch. Prints and writes bytes,
their ratio and the seconds of each part; ends with an error where a value differs.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import ray
import torch
import transfer_queue as tq
from omegaconf import OmegaConf
from PIL import Image
from tensordict import TensorDict
from transfer_queue.utils.serial_utils import encode
from transformers import Qwen2VLImageProcessor
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

from codedance_verl.environment.resized_images import resize_image
from codedance_verl.errors import UserError
from codedance_verl.rollout.output import GroupImages, Prepare
from codedance_verl.verl_compat.pixel_bytes import VALUES, PatchLayout, layout_of
from codedance_verl.verl_compat.pixel_inputs import FIELD, with_pixel_values

PATCHES = {"qwen2_5_vl": 14, "qwen3_vl": 16}
MOST_PIXELS = 1_003_520
"""Of an image of a rollout, the default of `environment.max_image_pixels`."""

READS = 2
"""How often a step reads the pixels: for the old log-probs and for the update."""

PARTITION = "train"
WAYS = ("floats", "bytes")
Result = TypeVar("Result")


@dataclasses.dataclass
class Cost:
    """Cost of all rollouts on one way: bytes as they are sent, seconds by part.

    `cpu_s` are CPU seconds of this process in all parts: what else the machine does hardly changes them.
    """

    queue_bytes: int = 0
    prepare_s: float = 0.0
    put_s: float = 0.0
    get_s: float = 0.0
    unpack_s: float = 0.0
    cpu_s: float = 0.0

    @property
    def total_s(self) -> float:
        return self.prepare_s + self.put_s + self.get_s + self.unpack_s


Held = list[list[Image.Image]]
"""The images of each rollout of one group."""


def groups(rollouts: int, size: int, pixels: int, seed: int = 0) -> Iterator[Held]:
    """Groups of `size` rollouts: the question's image is one object in all of them, as rollouts share their views."""
    chance = np.random.default_rng(seed)
    side = int(pixels**0.5) + 100  # larger than a view, and scaled down as one

    def image() -> Image.Image:
        return resize_image(Image.fromarray(chance.integers(0, 256, (side, side, 3), dtype=np.uint8)), pixels)

    for _ in range(rollouts // size):
        question = image()
        yield [[question, image()] for _ in range(size)]


def prepare_by(processor: Any) -> Prepare:
    """Inputs that verl makes of one image (`AgentLoopWorker._compute_multi_modal_inputs`)."""

    def prepare(image: Image.Image) -> dict[str, Any]:
        return _prepared(processor, [image])

    return prepare


def _prepared(processor: Any, images: Sequence[Image.Image]) -> dict[str, Any]:
    inputs = dict(processor(images=list(images), return_tensors="pt"))
    return {**inputs, "images_seqlens": inputs["image_grid_thw"][:, 1:].prod(dim=1)}


def _timed(cost: Cost, part: str, work: Callable[[], Result]) -> Result:
    started, cpu = time.perf_counter(), time.process_time()
    result = work()
    setattr(cost, part, getattr(cost, part) + time.perf_counter() - started)
    cost.cpu_s += time.process_time() - cpu
    return result


def through_queue(way: str, held: Held, processor: Any, layout: PatchLayout | None, cost: Cost) -> list[Any]:
    """Sends a group through the queue; returns what the engine gives to the model, a dictionary for each rollout."""
    rows: list[Any]
    if way == "bytes":
        made = GroupImages(held, prepare_by(processor), layout)
        rows = _timed(cost, "prepare_s", lambda: [made.made(images) for images in held])
    else:
        rows = _timed(cost, "prepare_s", lambda: [_prepared(processor, images) for images in held])
    keys = [f"{way}_{number}_0" for number in range(len(rows))]
    tags: list[dict[str, Any]] = [{} for _ in keys]
    fields = list_of_dict_to_tensordict([{"n": torch.tensor([n]), FIELD: row} for n, row in enumerate(rows)])
    cost.queue_bytes += sum(memoryview(frame).nbytes for frame in encode({FIELD: rows}))
    _timed(cost, "put_s", lambda: tq.kv_batch_put(keys=keys, partition_id=PARTITION, fields=fields, tags=tags))
    for _ in range(READS):
        read: TensorDict = _timed(cost, "get_s", lambda: tq.kv_batch_get(keys=keys, partition_id=PARTITION))
        found = _timed(cost, "unpack_s", lambda: with_pixel_values(read))  # noqa: B023  # called at once
    tq.kv_clear(keys=keys, partition_id=PARTITION)
    return list(found[FIELD])


def differing(found: Sequence[dict[str, Any]], expected: Sequence[dict[str, Any]]) -> int:
    """Counts rollouts that have other inputs than expected, be it by one bit."""
    return sum(not _same(one, other) for one, other in zip(found, expected, strict=True))


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    if one.keys() != other.keys() or not torch.equal(one[VALUES].view(torch.int32), other[VALUES].view(torch.int32)):
        return False
    return all(torch.equal(one[name], other[name]) for name in one)


def measure(rollouts: int, size: int, pixels: int, family: str) -> dict[str, Any]:
    """Both ways, group by group, in a queue that is up; which of them is first alternates."""
    torch.set_num_threads(1)  # as in a rollout worker: Ray sets OMP_NUM_THREADS to the CPUs of an actor
    processor = Qwen2VLImageProcessor(patch_size=PATCHES[family], max_pixels=16 * MOST_PIXELS)
    layout, costs, faults = layout_of(processor), {way: Cost() for way in WAYS}, 0
    for number, held in enumerate(groups(rollouts, size, pixels)):
        order = WAYS if number % 2 else WAYS[::-1]
        found = {way: through_queue(way, held, processor, layout, costs[way]) for way in order}
        faults += differing(found["bytes"], found["floats"])
    before, after = costs["floats"], costs["bytes"]
    return {
        "family": family,
        "rollouts": rollouts,
        "group_size": size,
        "pixels": pixels,
        **{way: {**dataclasses.asdict(cost), "total_s": cost.total_s} for way, cost in costs.items()},
        "bytes_ratio": after.queue_bytes / before.queue_bytes,
        "time_ratio": after.total_s / before.total_s,
        "cpu_ratio": after.cpu_s / before.cpu_s,
        "rollouts_that_differ": faults,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }


def start_queue(units: int) -> None:
    """Starts a Ray of its own with a transfer queue of so many units."""
    ray.init(address="local", num_cpus=units + 2, include_dashboard=False, log_to_driver=False)
    tq.init(OmegaConf.create({"backend": {"SimpleStorage": {"num_data_storage_units": units}}}))


def stop_queue() -> None:
    """Stops what `start_queue` started."""
    tq.close()
    ray.shutdown()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollouts", type=int, default=256, help="a multiple of --group-size")
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--pixels", type=int, default=MOST_PIXELS, help="of an image")
    parser.add_argument("--family", choices=PATCHES, default="qwen2_5_vl")
    parser.add_argument("--units", type=int, default=2, help="storage units of the queue")
    parser.add_argument("--output", type=Path, default=Path("outputs/bench/pixel_queue.json"))
    options = parser.parse_args(arguments)
    if options.rollouts < options.group_size or options.rollouts % options.group_size:
        raise UserError(f"--rollouts={options.rollouts}: must be a multiple of --group-size={options.group_size}")
    start_queue(options.units)
    try:
        found = measure(options.rollouts, options.group_size, options.pixels, options.family)
    finally:
        stop_queue()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(found, indent=2) + "\n")
    for way in WAYS:
        cost = found[way]
        print(f"{way:<7} {cost['queue_bytes']:>15,} bytes, " + ", ".join(_seconds(cost)))
    print(f"bytes {found['bytes_ratio']:.4f}, time {found['time_ratio']:.2f}, CPU {found['cpu_ratio']:.2f} of floats")
    if found["rollouts_that_differ"]:
        raise UserError(f"{found['rollouts_that_differ']} of {options.rollouts} rollouts have other values")


def _seconds(cost: dict[str, float]) -> list[str]:
    return [f"{name.removesuffix('_s')} {value:.2f} s" for name, value in cost.items() if name.endswith("_s")]


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
