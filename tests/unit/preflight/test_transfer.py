"""An engine for weights that would not be there, or not take them, is named before a run starts, with its cure."""

from __future__ import annotations

import copy
import functools
import sys
from pathlib import Path

import pytest
import torch
import yaml
from omegaconf import DictConfig, OmegaConf

from codedance_verl.config.compose import compose_config
from codedance_verl.preflight import transfer
from codedance_verl.preflight.model_shape import read_shape
from codedance_verl.preflight.report import Report
from codedance_verl.preflight.transfer import BACKEND, BUCKET, MODULE, NODE, OF_VERL, check_bucket, check_transfer
from codedance_verl.verl_compat.weight_stream import dtype_on_the_wire
from tests.unit.preflight.folders import make_model

SEPARATE = "trainer=separate_async"
GPUS = "hardware=2x8gpu"
EMBEDDING_7B = 152_064 * 3584


@functools.cache
def _composed(*groups: str) -> DictConfig:
    return compose_config("train", ["recipe=cpu_demo", "run_dir=/tmp/run", *groups])


def composed(*overrides: str) -> DictConfig:
    """The choices of groups are composed once for all tests, as that takes longest; single keys are set in a copy."""
    groups = [item for item in overrides if item in (GPUS, SEPARATE)]
    config = copy.deepcopy(_composed(*([] if GPUS in groups else ["hardware=cpu"]), *groups))
    for key, value in (item.removeprefix("+").split("=", 1) for item in overrides if item not in groups):
        OmegaConf.update(config, key, yaml.safe_load(value), force_add=True)
    return config


def told(*overrides: str) -> list[str]:
    report = Report(dry=True)
    check_transfer(composed(*overrides), report)
    return report.findings


@pytest.mark.parametrize(
    "overrides", [(), (SEPARATE,), (GPUS,), (GPUS, SEPARATE), (GPUS, SEPARATE, f"{BACKEND}=nccl"), (f"{BUCKET}=1",)]
)
def test_what_works_is_accepted(overrides: tuple[str, ...]) -> None:
    assert told(*overrides) == []


@pytest.mark.parametrize("backend", OF_VERL)
def test_engines_that_no_lock_has_the_packages_of_are_refused(backend: str) -> None:
    (line,) = told(GPUS, SEPARATE, f"{BACKEND}={backend}")
    assert line.startswith(f"{BACKEND}={backend}: is in no lock") and "ray_object_store" in line and "nccl" in line


def test_every_engine_that_verl_has_is_known_here() -> None:
    import verl.checkpoint_engine as package

    files = Path(package.__file__).parent.glob("*_checkpoint_engine.py")
    names = {path.name.removesuffix("_checkpoint_engine.py") for path in files}
    assert names == {"delta", "hccl", "kimi", "mooncake", "nccl", "nixl"}
    assert {name.split("_")[0] for name in OF_VERL} | {"nccl"} == names


def test_nccl_without_gpus_is_refused() -> None:
    assert told(SEPARATE, f"{BACKEND}=nccl") == [
        f"{BACKEND}=nccl: goes between GPUs only; ray_object_store works on every device"
    ]


def test_nccl_without_cupy_is_refused_where_torch_is_built_for_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(transfer.importlib.util, "find_spec", lambda name: None if name == "cupy" else object())
    (line,) = told(GPUS, SEPARATE, f"{BACKEND}=nccl")
    assert line.startswith(f"{BACKEND}=nccl: needs cupy") and "make setup" in line


@pytest.mark.parametrize(
    ("overrides", "key", "allowed"),
    [
        ((f"{BACKEND}=nccl", GPUS), f"{BACKEND}=nccl", "must be naive"),
        ((SEPARATE, f"{BACKEND}=naive"), f"{BACKEND}=naive", "needs ray_object_store or nccl"),
        ((SEPARATE, f"{BACKEND}=pigeon"), f"{BACKEND}=pigeon", "registers no such engine; ray_object_store works"),
        ((SEPARATE, f"{BACKEND}=pigeon", f"{MODULE}=null"), f"{BACKEND}=pigeon", "must be ray_object_store, nccl, or"),
        ((SEPARATE, f"{MODULE}=null"), f"{MODULE}=null", "must be codedance_verl.verl_compat.object_store_transfer"),
        ((SEPARATE, f"{MODULE}=gone.away"), f"{MODULE}=gone.away", "cannot be imported"),
        ((SEPARATE, f"{NODE}.engine_kwargs.ray_object_store.dtype=int8"), ".dtype=int8", "must be one of bfloat16"),
        ((SEPARATE, f"{NODE}.engine_kwargs.ray_object_store.verify=3"), ".verify=3", "must be true or false"),
        ((SEPARATE, f"+{NODE}.engine_kwargs.ray_object_store.verfy=true"), ".verfy", "known are verify, dtype"),
        ((f"{BUCKET}=0",), f"{BUCKET}=0", "must be a whole number from 1"),
    ],
)
def test_a_mistake_is_one_line_with_key_and_cure(overrides: tuple[str, ...], key: str, allowed: str) -> None:
    (line,) = told(*overrides)
    assert key in line.split(":")[0] and allowed in line


def test_a_wrong_dtype_of_the_rollout_is_no_second_mistake_here() -> None:
    assert told(SEPARATE, "actor_rollout_ref.rollout.dtype=int8") == []


def test_an_engine_of_the_users_own_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pigeons.py").write_text(
        "from verl.checkpoint_engine import CheckpointEngine, CheckpointEngineRegistry\n"
        "CheckpointEngineRegistry.register('pigeons')(CheckpointEngine)\n"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    from verl.checkpoint_engine import CheckpointEngineRegistry

    monkeypatch.setattr(CheckpointEngineRegistry, "_registry", dict(CheckpointEngineRegistry._registry))
    assert told(SEPARATE, f"{BACKEND}=pigeons", f"{MODULE}=pigeons") == []


@pytest.mark.parametrize("content", ["raise RuntimeError('no pigeon\\nis at home')", "def pigeon(:", "1 / 0"])
def test_a_module_that_fails_is_one_line(content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "failing_pigeons.py").write_text(content)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (line,) = told(SEPARATE, f"{MODULE}=failing_pigeons")
    assert line.startswith(f"{MODULE}=failing_pigeons: cannot be imported (") and "\n" not in line
    assert "at home" not in line and line.endswith(f"{transfer.OWN_MODULE} is")


@pytest.mark.parametrize(
    ("overrides", "bytes_of_a_value"),
    [
        ((), 4),
        ((SEPARATE,), 4),
        ((SEPARATE, "actor_rollout_ref.rollout.dtype=bfloat16"), 2),
        ((SEPARATE, "actor_rollout_ref.rollout.dtype=bfloat16", f"{BACKEND}=pigeons"), 4),
        (("actor_rollout_ref.rollout.dtype=bfloat16",), 4),
        (("actor_rollout_ref.actor.fsdp_config.model_dtype=bf16",), 2),
    ],
)
def test_on_a_cpu_the_bucket_must_hold_the_largest_weight_as_it_reaches_vllm(
    overrides: tuple[str, ...], bytes_of_a_value: int, tmp_path: Path
) -> None:
    shape = read_shape(make_model(tmp_path, "7b"), "model")
    assert shape.largest_weight == EMBEDDING_7B
    least = EMBEDDING_7B * bytes_of_a_value / 2**20
    for mib, enough in ((int(least), least == int(least)), (int(least) + 1, True)):
        report = Report(dry=True)
        check_bucket(composed(f"{BUCKET}={mib}", *overrides), report, shape)
        assert (report.findings == []) == enough
        assert all(line.startswith(f"{BUCKET}={mib}: must be at least {mib + 1}") for line in report.findings)


def test_between_gpus_no_weight_is_too_large(tmp_path: Path) -> None:
    report = Report(dry=True)
    check_bucket(composed(GPUS, SEPARATE, f"{BUCKET}=64"), report, read_shape(make_model(tmp_path, "7b"), "model"))
    assert report.findings == []


def test_the_rollouts_dtype_reaches_the_engine() -> None:
    """As `ActorRolloutRefWorker` makes the engine of the resolved configuration."""
    from codedance_verl.verl_compat.object_store_transfer import ObjectStoreTransfer

    config = composed(GPUS, SEPARATE)
    arguments = config.actor_rollout_ref.rollout.checkpoint_engine.engine_kwargs.ray_object_store
    engine = ObjectStoreTransfer(bucket_size=1024, is_master=True, **arguments)
    assert dtype_on_the_wire(torch.float32, engine._dtype) == torch.bfloat16
