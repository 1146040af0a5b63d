"""The processes of a transfer as Ray actors, and what each of them takes: seconds and peak memory."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
import xxhash

from benchmarks.weight_transfer.state import MIB, State
from benchmarks.weight_transfer.whole_tensors import WholeTensors
from codedance_verl.verl_compat.object_store_transfer import ObjectStoreTransfer
from codedance_verl.verl_compat.weight_stream import dtype_on_the_wire

WAYS = {"before": WholeTensors, "after": ObjectStoreTransfer}
"""Engines by name: whole tensors in the trainer's dtype, and the stream of buckets in the rollout's."""

ROLLOUT_DTYPE = "bfloat16"
_LOOK_SECONDS = 0.01
_SHARED = Path("/dev/shm")


@dataclass(frozen=True)
class Rank:
    """Cost of one process.

    Attributes:
        seconds: of the transfer, as this process saw it.
        own_mib: most anonymous memory above what it had before.
        store_mib: most shared memory in use on its node above what there was before any transfer.
    """

    seconds: float
    own_mib: float
    store_mib: float


class Watch:
    """A context that looks at memory every 10 ms; the object store keeps what it ever had, so its mark is a peak."""

    def __init__(self, shared_before: float) -> None:
        self._shared_before = shared_before
        self._end = threading.Event()

    def __enter__(self) -> Watch:
        self._before, self._most, self._shared = own_mib(), 0.0, 0.0
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._began = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._began
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._end.wait(_LOOK_SECONDS):
            self._most = max(self._most, own_mib())
            self._shared = max(self._shared, shared_mib())

    def taken(self) -> Rank:
        """Increase, to a tenth of a MiB."""
        most, shared = max(self._most - self._before, 0.0), max(self._shared - self._shared_before, 0.0)
        return Rank(round(self.seconds, 3), round(most, 1), round(shared, 1))


def own_mib() -> float:
    """Resident memory of this process that it shares with nobody, MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/self/status has no RssAnon: this benchmark needs Linux")


def shared_mib() -> float:
    """Shared memory in use on this node, MiB."""
    return shutil.disk_usage(_SHARED).used / MIB


class Process:
    """An actor or rollout rank with the engine that verl would make in it."""

    def __init__(self, way: str, bucket_mib: int, state: State) -> None:
        self._engine = WAYS[way](bucket_size=bucket_mib * MIB, dtype=ROLLOUT_DTYPE if way == "after" else None)
        self._wanted = torch.bfloat16 if way == "after" else None
        self._state = state
        self._shared_before = shared_mib()

    def join(self, mailbox: Any, sends: bool) -> None:
        """Takes part in the next transfer."""
        self._engine.init_process_group(mailbox, sends)

    async def send(self) -> tuple[Rank, dict[str, float]]:
        """Sends, or as another rank of the actor takes part in the gathering."""
        with Watch(self._shared_before) as watch:
            metrics = await self._engine.send_weights(self._state.weights())
        return watch.taken(), metrics

    async def receive(self) -> Rank:
        """Receives, and keeps nothing."""
        with Watch(self._shared_before) as watch:
            async for _name, tensor in self._engine.receive_weights():
                del tensor
        return watch.taken()

    async def received(self) -> dict[str, str]:
        """A hash of every tensor of a transfer, as it was received."""
        return {name: _digest(tensor) async for name, tensor in self._engine.receive_weights()}

    def expected(self) -> dict[str, str]:
        """The same of what is sent, cast as a whole: made without any engine."""
        return dict(self._digests())

    def _digests(self) -> Iterator[tuple[str, str]]:
        for name, tensor in self._state.weights():
            yield name, _digest(tensor.to(dtype_on_the_wire(tensor.dtype, self._wanted)))


def _digest(tensor: torch.Tensor) -> str:
    values = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
    return f"{tuple(tensor.shape)} {tensor.dtype} {xxhash.xxh3_128_hexdigest(values)}"


def measure(way: str, bucket_mib: int, state: State, receivers: int, nodes: int) -> dict[str, Any]:
    """Two transfers in the Ray cluster that is joined: one whose tensors are all compared, one that is timed.

    The actor's two ranks are on this node, the rollout's on the last one.

    Raises:
        RuntimeError: a receiver got something else than was sent.
    """
    here, there = _places(nodes)
    make = ray.remote(Process)
    actors = [make.options(num_cpus=0, resources=here).remote(way, bucket_mib, state) for _ in range(2)]
    rollouts = [make.options(num_cpus=0, resources=there).remote(way, bucket_mib, state) for _ in range(receivers)]
    expected = ray.get(actors[0].expected.remote())
    _join(way, actors, rollouts)
    sent = [actor.send.remote() for actor in actors]
    got = ray.get([*sent, *(rollout.received.remote() for rollout in rollouts)])[len(sent) :]
    wrong = [name for found in got for name in {*expected, *found} if expected.get(name) != found.get(name)]
    if wrong:
        raise RuntimeError(f"{way}: {len(wrong)} tensors are not equal, such as {wrong[0]}")
    _join(way, actors, rollouts)
    sent = [actor.send.remote() for actor in actors]
    (sender, metrics), (bystander, _), *taken = ray.get([*sent, *(rollout.receive.remote() for rollout in rollouts)])
    return {
        "equal_tensors": len(expected),
        "sent_mib": metrics["weight_transfer/mib"],
        "seconds": sender.seconds,
        "sender": vars(sender),
        "bystander": vars(bystander),
        "receivers": [vars(rank) for rank in taken],
    }


def _places(nodes: int) -> tuple[dict[str, float], dict[str, float]]:
    """Resources that only the first and only the last node have."""
    return ({}, {}) if nodes == 1 else ({"first": 0.001}, {"last": 0.001})


def _join(way: str, actors: list[Any], rollouts: list[Any]) -> None:
    of_actors, of_rollouts = WAYS[way].build_topology(len(actors), len(rollouts), [])
    for ranks, topology in ((actors, of_actors), (rollouts, of_rollouts)):
        places = zip(ranks, topology["mailbox"], topology["sends"], strict=True)
        ray.get([rank.join.remote(mailbox, sends) for rank, mailbox, sends in places])
