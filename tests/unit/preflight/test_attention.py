"""What needs flash-attn is refused before anything starts where it cannot be imported, with a cure that works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from codedance_verl.config.compose import compose_config
from codedance_verl.preflight import attention
from codedance_verl.preflight.attention import check_attention
from codedance_verl.preflight.report import Report

MODELS = {"train": "actor_rollout_ref.model", "evaluate": "actor_rollout_ref.model", "sft": "model"}


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    attention.missing.cache_clear()


def _compose(name: str, *overrides: str) -> DictConfig:
    return compose_config(name, ["hardware=1xgpu", "run_dir=/tmp/run", *overrides])


def _found(name: str, *overrides: str, dry: bool = False) -> list[str]:
    report = Report(dry=dry)
    check_attention(_compose(name, *overrides), report, MODELS[name])
    return report.findings


@pytest.mark.parametrize("name", list(MODELS))
def test_a_run_whose_flash_attention_does_not_import_is_refused_and_its_cure_is_not(name: str) -> None:
    lines = _found(name)
    keys = [f"{MODELS[name]}.override_config.attn_implementation", f"{MODELS[name]}.use_remove_padding"]
    assert [line.split("=")[0] for line in lines] == keys
    assert all("No module named 'flash_attn'" in line for line in lines)
    for line in lines:
        cure = re.search(r"without it set (.*)$", line)
        assert cure is not None
        assert _found(name, *cure.group(1).split()) == []


def test_sdpa_with_packed_sequences_is_refused_as_verl_packs_by_flash_attention() -> None:
    (line,) = _found("train", "actor_rollout_ref.model.override_config.attn_implementation=sdpa")
    assert line.startswith("actor_rollout_ref.model.use_remove_padding=true: needs flash-attn")


def test_packed_sequences_on_a_cpu_are_refused() -> None:
    report = Report(dry=True)
    config = _compose("train", "hardware=cpu", "actor_rollout_ref.model.use_remove_padding=true")
    check_attention(config, report)
    (line,) = report.findings
    assert line.startswith("actor_rollout_ref.model.use_remove_padding=true: needs flash-attn (it needs a GPU); set ")


@pytest.mark.parametrize(("gpu", "found"), [(False, 0), (True, 2)])
def test_a_dry_run_looks_for_it_only_where_there_is_a_gpu(
    gpu: bool, found: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "_has_gpu", lambda: gpu)
    assert len(_found("train", dry=True)) == found


def test_a_cluster_that_is_joined_has_it_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert _found("train") == []


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        ("", ""),
        ("raise ImportError('undefined symbol: _ZN3c10')", "ImportError: undefined symbol: _ZN3c10"),
        ("import os; os.abort()", "code -6"),
    ],
    ids=["good", "of another torch", "crashes"],
)
def test_why_it_cannot_be_imported_is_told(
    module: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "flash_attn.py").write_text(module)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert attention.missing().endswith(reason) and bool(attention.missing()) is bool(reason)


def test_other_attentions_need_none() -> None:
    report = Report()
    config = _compose("train", "hardware=cpu")
    check_attention(config, report)
    assert not report.findings
    assert OmegaConf.select(config, "actor_rollout_ref.model.override_config.attn_implementation") == "sdpa"
