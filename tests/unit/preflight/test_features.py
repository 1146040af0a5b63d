"""Overrides that researchers try have a meaning: they work, or one line at the start says why not and what to set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from codedance_verl.config.compose import compose_config, compose_leniently
from codedance_verl.config.overrides import key_of
from codedance_verl.preflight.capabilities import check_capabilities
from codedance_verl.preflight.capability_conditions import CONDITIONS, check_conditions, conditions_markdown
from codedance_verl.preflight.checks import check_values
from codedance_verl.preflight.layout import check_heads, check_layout
from codedance_verl.preflight.model_shape import ModelShape
from codedance_verl.preflight.report import Report

ROOT = Path(__file__).parents[3]
CASES: list[dict[str, Any]] = json.loads((ROOT / "tests/data/cases/config/features.json").read_text())["cases"]
BASE = ["recipe=cpu_demo", "hardware=cpu", "run_dir=/tmp/run"]
BATCH = 40
"""Overrides of a command line: composing one takes a second."""


def _report(overrides: list[str]) -> Report:
    composed = compose_leniently("train", [*BASE, *overrides])
    report = Report(dry=True)
    if composed.config is not None:
        check_capabilities(composed.config, report)
        check_values(composed.config, report)
    for line in composed.mistakes:
        report.add_error(line)
    return report


def _lines(report: Report, override: str) -> list[str]:
    key = key_of(override)
    return [line for line in report.findings if line.startswith((f"{key}=", f"{key}:"))]


def _batches() -> list[list[dict[str, Any]]]:
    """Cases of one override in command lines that name no key twice, by what is expected; one of several is alone."""
    batches = list[list[dict[str, Any]]]()
    for case in CASES:
        fitting = (batch for batch in batches if _fits(case, batch))
        batch = next(fitting, None)
        if batch is None:
            batches.append([case])
        else:
            batch.append(case)
    return batches


def _fits(case: dict[str, Any], batch: list[dict[str, Any]]) -> bool:
    if len(batch) == BATCH or any(
        len(item["input"]) > 1 or item["expect"] != case["expect"] for item in [case, *batch]
    ):
        return False
    return not any(_meet(case["input"][0], item["input"][0]) for item in batch)


def _meet(one: str, other: str) -> bool:
    shorter, longer = sorted((key_of(one), key_of(other)), key=len)
    return shorter == longer or longer.startswith(f"{shorter}.")


@pytest.mark.slow
@pytest.mark.parametrize("batch", _batches(), ids=lambda batch: f"{batch[0]['input'][-1]}-{len(batch)}")
def test_a_feature_works_or_is_refused_with_its_cure(batch: list[dict[str, Any]]) -> None:
    report = _report([override for case in batch for override in case["input"]])
    told = {case["input"][-1]: _lines(report, case["input"][-1]) for case in batch}
    assert {
        override: lines for override, lines in told.items() if len(lines) != (batch[0]["expect"] == "refused")
    } == {}
    for case in batch:
        for line in told[case["input"][-1]]:
            assert all(word in line for word in case.get("says", ())), case


def test_the_documentation_has_the_conditions() -> None:
    assert conditions_markdown() in (ROOT / "docs" / "configuration.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("row", CONDITIONS, ids=lambda row: row.keys[0])
def test_a_key_without_its_condition_is_refused(row: Any) -> None:
    overrides = row.example.split()
    (line,) = _lines(_report(overrides), overrides[-1])
    assert line == f"{overrides[-1]}: has no effect without {row.needs}"


RECIPES = [
    ["recipe=codedance_7b", "hardware=2x8gpu"],
    ["recipe=codedance_7b", "hardware=8xgpu", "algorithm=dapo", "adapter=lora"],
    ["recipe=codedance_7b_async", "hardware=2x8gpu"],
    ["recipe=codedance_7b_async", "hardware=2x8gpu", "trainer=colocate_async"],
    ["recipe=codedance_7b_async", "hardware=2x8gpu", "trainer=sync"],
    ["recipe=cpu_demo", "hardware=cpu"],
    ["recipe=ppo", "hardware=1xgpu"],
    ["recipe=ppo", "hardware=1xgpu", "algorithm=grpo"],
    ["recipe=cpu_demo", "hardware=2x8gpu", "trainer=colocate_async"],
]


@pytest.mark.slow
@pytest.mark.parametrize("given", RECIPES, ids=" ".join)
def test_what_conf_sets_fulfils_its_conditions_or_is_left_alone(given: list[str]) -> None:
    config, report = compose_config("train", given, complete=False), Report(dry=True)
    check_conditions(config, report)
    assert report.findings == []


def test_sampling_from_a_cut_distribution_is_warned_of() -> None:
    report = _report(["actor_rollout_ref.rollout.top_p=0.9", "actor_rollout_ref.rollout.top_k=50"])
    assert report.findings == [] and [line.split(":")[0] for line in report.warnings] == [
        "actor_rollout_ref.rollout.top_p=0.9",
        "actor_rollout_ref.rollout.top_k=50",
    ]
    assert _report(["actor_rollout_ref.rollout.val_kwargs.top_p=0.9"]).warnings == []


@pytest.mark.parametrize(
    ("key", "refused", "allowed"),
    [
        ("actor_rollout_ref.actor.ulysses_sequence_parallel_size", 8, 4),
        ("actor_rollout_ref.rollout.tensor_model_parallel_size", 8, 4),
        ("actor_rollout_ref.ref.ulysses_sequence_parallel_size", 8, 2),
    ],
)
def test_heads_divide_over_the_devices_that_share_them(key: str, refused: int, allowed: int) -> None:
    shape = _shape(heads=28, kv_heads=4)
    assert _told_of_heads(key, allowed, shape) == []
    (line,) = _told_of_heads(key, refused, shape)
    assert line.startswith(f"{key}={refused}: must divide the 28 attention heads") and line.endswith(": 1, 2, 4, 28")


@pytest.mark.parametrize("node", ["actor", "ref"])
def test_no_devices_to_a_sequence_are_told_in_a_line(node: str) -> None:
    """Also where the reference model takes its number from the actor."""
    key = f"actor_rollout_ref.{node}.ulysses_sequence_parallel_size"
    config = compose_leniently("train", [*BASE, f"{key}=0", "actor_rollout_ref.actor.use_kl_loss=true"]).config
    assert config is not None
    report = Report(dry=True)
    check_values(config, report)
    check_layout(config, report)
    check_heads(config, report, _shape(heads=28, kv_heads=4))
    assert len([line for line in report.findings if line.startswith(f"{key}=0: must ")]) == 1


def _told_of_heads(key: str, size: int, shape: ModelShape) -> list[str]:
    given = [f"{key}={size}", "actor_rollout_ref.actor.use_kl_loss=true", "trainer.n_gpus_per_node=8"]
    given += ["actor_rollout_ref.model.use_remove_padding=true"]
    config, report = compose_leniently("train", [*BASE, *given]).config, Report(dry=True)
    assert config is not None
    check_layout(config, report)
    check_heads(config, report, shape)
    return _lines(report, f"{key}={size}")


def _shape(heads: int, kv_heads: int) -> ModelShape:
    sizes = dict.fromkeys(ModelShape.__dataclass_fields__, 1)
    return ModelShape(**{**sizes, "name": "qwen2_5_vl", "heads": heads, "kv_heads": kv_heads})  # type: ignore[arg-type]
