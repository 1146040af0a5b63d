"""Checks of the weight transfer from actor to rollout: the engine, its arguments, and the size of a bucket.

verl 0.9.1 resolves an engine when its workers start, and finds a weight too large in the first transfer.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator, Mapping
from typing import Literal

from omegaconf import DictConfig

from codedance_verl.config.node import Node, SettingsError, whole
from codedance_verl.preflight.devices import BYTES_OF_A_VALUE
from codedance_verl.preflight.layout import SEPARATE
from codedance_verl.preflight.model_shape import ModelShape
from codedance_verl.preflight.report import Report, apply_rules, at
from codedance_verl.preflight.settings import ACTOR, ROLLOUT, check_table

NODE = f"{ROLLOUT}.checkpoint_engine"
BACKEND, MODULE = f"{NODE}.backend", f"{NODE}.custom_backend_module"
BUCKET = f"{NODE}.update_weights_bucket_megabytes"
OWN, OWN_MODULE = "ray_object_store", "codedance_verl.verl_compat.object_store_transfer"
OF_VERL = ("delta_sharded", "hccl", "kimi_ckpt_engine", "mooncake", "nixl")
"""Engines of verl 0.9.1 whose packages are in no lock of this project; none of them was ever run with it."""

_CURE = "ray_object_store works on every device, nccl between GPUs"


def check_transfer(config: DictConfig, report: Report) -> None:
    """Finds an engine that is not installed, and arguments that it does not have."""
    apply_rules((_engine, _arguments), config, report)
    check_table({BUCKET: whole(1, 1_000_000)}, config, report)


def check_bucket(config: DictConfig, report: Report, shape: ModelShape | None) -> None:
    """Checks that a bucket holds the largest weight on a CPU: verl 0.9.1 cuts none for shared memory.

    Between GPUs it passes a larger one on by its CUDA handle.
    """
    if shape is None or at(config, "trainer.device") != "cpu" or report.has_error(BUCKET):
        return
    # bytes, rounded up to MiB
    largest = shape.largest_weight * _bytes_of_a_value(config)
    mib = -(-largest // 2**20)
    if at(config, BUCKET) < mib:
        report.add_error(
            f"{BUCKET}={at(config, BUCKET)}: must be at least {mib}, the MiB of the model's largest weight, as "
            "hardware=cpu passes it on to vLLM whole"
        )


def _bytes_of_a_value(config: DictConfig) -> int:
    """Returns the bytes of a value as it reaches vLLM: only our engine casts, others send the trained dtype."""
    trained = BYTES_OF_A_VALUE.get(str(at(config, f"{ACTOR}.fsdp_config.model_dtype") or "fp32"), 4)
    if at(config, "trainer.v1.trainer_mode") != SEPARATE or at(config, BACKEND) != OWN:
        return trained
    return min(trained, BYTES_OF_A_VALUE.get(str(at(config, f"{NODE}.engine_kwargs.{OWN}.dtype")), trained))


def _engine(config: DictConfig) -> Iterator[str]:
    backend, separate = at(config, BACKEND), at(config, "trainer.v1.trainer_mode") == SEPARATE
    if not separate:
        if backend != "naive":
            yield f"{BACKEND}={backend}: must be naive, but with trainer=separate_async: weights go by memory"
    elif backend == "naive":
        yield f"{BACKEND}=naive: trainer=separate_async needs ray_object_store or nccl"
    elif backend in OF_VERL:
        yield f"{BACKEND}={backend}: is in no lock of this project; {_CURE}"
    elif backend == "nccl":
        yield from _nccl(config)
    else:
        yield from _registered(config, str(backend))


def _nccl(config: DictConfig) -> Iterator[str]:
    """Checks the needs of nccl; a CPU build of torch (a dry run) is taken for machines with requirements/gpu.txt."""
    import torch

    if at(config, "trainer.device") != "cuda":
        yield f"{BACKEND}=nccl: goes between GPUs only; ray_object_store works on every device"
    elif torch.version.cuda is not None and importlib.util.find_spec("cupy") is None:
        yield f"{BACKEND}=nccl: needs cupy, which is not installed; `make setup` installs it with requirements/gpu.txt"


def _registered(config: DictConfig, backend: str) -> Iterator[str]:
    """Checks that our module, or the user's own, registers the engine."""
    from verl.checkpoint_engine import CheckpointEngineRegistry

    module = at(config, MODULE)
    if not module:
        if backend == OWN:
            yield f"{MODULE}=null: must be {OWN_MODULE} with {BACKEND}={OWN}"
        else:
            yield f"{BACKEND}={backend}: must be ray_object_store, nccl, or one that {MODULE} registers"
        return
    try:  # an engine registers itself when its module is imported
        importlib.import_module(str(module))
    except Exception as error:  # the user's own code, which may fail with any
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        yield f"{MODULE}={module}: cannot be imported ({reason}); {OWN_MODULE} is"
        return
    if backend not in CheckpointEngineRegistry._registry:
        yield f"{BACKEND}={backend}: {module} registers no such engine; {_CURE}"


def _arguments(config: DictConfig) -> Iterator[str]:
    """Checks the arguments of our engine; another one's go to it as they are."""
    node = f"{NODE}.engine_kwargs.{OWN}"
    given = at(config, node)
    if at(config, BACKEND) != OWN or given is None:
        return
    if isinstance(given, Mapping | DictConfig) and given.get("dtype") == at(config, f"{ROLLOUT}.dtype"):
        given = {**given, "dtype": None}  # the rollout's is checked by itself
    try:
        TransferConfig.from_mapping(given, node)
    except SettingsError as error:
        yield from (fault.line for fault in error.faults)


class TransferConfig(Node):
    """Arguments of our engine (`OWN`)."""

    verify: bool = True
    """Compares hashes of what was sent and of what arrived."""
    dtype: Literal["bfloat16", "float16", "float32"] | None = None
    """Type that weights are sent as; null: as they are trained."""
