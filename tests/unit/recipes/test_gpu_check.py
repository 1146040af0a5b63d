"""The check of a machine with GPUs: its dry run here, its models' sizes, and what it makes of figures."""

from __future__ import annotations

import json
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from codedance_verl.preflight.model_shape import read_shape
from recipes.cpu_demo.demo_set import make_demo_data
from recipes.cpu_demo.demo_sizes import DemoSizes
from recipes.cpu_demo.tiny_shape import TinyShape
from recipes.gpu_check import run as module
from recipes.gpu_check.models import SIZES, make_model
from recipes.gpu_check.run import Check, main
from recipes.gpu_check.runs import BIT_EQUAL, CORRELATION, DIVERGENCE, MEMORY, RUNS, STEPS, faults, figures

SYNC, SEPARATE, LARGE = RUNS
GOOD = {
    CORRELATION: 0.999,
    DIVERGENCE: 0.001,
    MEMORY: 20.0,
    "perf/throughput": 5000.0,
    "perf/time_per_step": 6.0,
    "codedance/rollout/seconds_total/train/generate": 6.0,
    "codedance/rollout/seconds_total/train/queue": 1.0,
    "codedance/rollout/seconds_total/train/execute": 1.0,
}


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = DemoSizes(sft=8, rl_train=1, rl_val=1, test=1, blank=0, controls=0)
    return make_demo_data(tmp_path_factory.mktemp("data"), sizes=sizes).sft


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_the_dry_run_needs_no_gpu_and_finds_nothing_wrong_with_any_run(tmp_path: Path) -> None:
    assert main(["--out", str(tmp_path), "--sandbox", "process", "--dry-run"]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["passed"] and report["dry_run"]
    assert [check["name"] for check in report["checks"]] == ["imports and flash-attn", *(run.name for run in RUNS)]
    for check in report["checks"]:
        assert (check["state"], check["reasons"]) == ("planned", [])
    for check in report["checks"][1:]:
        assert check["figures"]["command"][1:3] == ["-m", "codedance_verl.train"]
        assert 0 < check["figures"]["memory_estimate_gib"] < 80


def test_without_a_gpu_it_ends_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "list_gpus", list)
    assert main(["--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: no GPU is listed by nvidia-smi")


@pytest.mark.parametrize(("size", "least", "most"), [("0.5b", 0.45e9, 0.6e9), ("3b", 3.5e9, 4.0e9)])
def test_models_have_the_sizes_of_their_names(
    size: str, least: float, most: float, demonstrations: Path, tmp_path: Path
) -> None:
    folder = make_model(tmp_path, size, demonstrations, weights=False)
    assert least < read_shape(folder, "model.path").parameters < most


@pytest.mark.slow
def test_a_model_with_weights_loads_in_bfloat16(
    demonstrations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForImageTextToText

    monkeypatch.setitem(SIZES, "tiny", TinyShape(vocabulary=2048))
    folder = make_model(tmp_path, "tiny", demonstrations)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype="auto")
    assert model.dtype is torch.bfloat16 and model.get_input_embeddings().num_embeddings == 2048


@pytest.mark.slow
def test_a_model_whose_making_was_cut_short_is_made_anew_and_leaves_no_weights_in_memory(
    demonstrations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SIZES, "0.5b", TinyShape(vocabulary=2048))
    save, made, left = PreTrainedModel.save_pretrained, [], []

    def cut_short(self: Any, folder: Path) -> None:
        made.append(weakref.ref(self))
        save(self, folder)
        if len(made) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", cut_short)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: left.append(made[-1]() is not None))
    inputs = module.Inputs(demonstrations.with_name("train.parquet"), tmp_path / "model", tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        module._make_model(SYNC, inputs, weights=True)
    for _ in range(2):
        module._make_model(SYNC, inputs, weights=True)
    assert len(made) == 2, "a whole one is kept"
    assert left == [False], "else emptying the cache would free nothing"
    assert [path.name for path in tmp_path.iterdir()] == ["model"] and any(inputs.model.glob("model*.safetensors"))


def test_good_figures_have_no_faults() -> None:
    found = figures([GOOD] * STEPS, estimate_gib=25.0)
    assert faults(SYNC, found) == faults(LARGE, found) == []
    assert found["sandbox_wait_share"] == 0.25 and found["tokens_per_second"] == 5000.0


@pytest.mark.parametrize(
    ("step", "fault"),
    [
        ({**GOOD, DIVERGENCE: 0.4}, "0.4 nats a token apart"),
        ({**GOOD, DIVERGENCE: float("nan")}, "nan nats a token apart"),
        ({**GOOD, CORRELATION: 0.5}, "correlate by 0.5"),
        ({key: value for key, value in GOOD.items() if key != CORRELATION}, "correlate by None"),
    ],
    ids=["old weights", "not a number", "other probabilities", "not told"],
)
def test_disagreement_in_a_later_step_fails_the_run(step: dict[str, Any], fault: str) -> None:
    first = {key: value for key, value in GOOD.items() if key in step}
    (told,) = faults(SYNC, figures([first, step, first], None))
    assert fault in told


def test_groups_apart_need_weights_that_are_told_to_be_equal() -> None:
    (told,) = faults(SEPARATE, figures([GOOD] * STEPS, None))
    assert "bit-equal" in told
    assert faults(SEPARATE, figures([{**GOOD, BIT_EQUAL: 1.0}] * STEPS, None)) == []


def test_a_run_that_ended_early_fails() -> None:
    assert faults(SYNC, figures([GOOD], None)) == [f"1 of {STEPS} steps were done"]


def test_what_a_check_raises_fails_it_alone() -> None:
    def broken(_: Check) -> None:
        raise RuntimeError("CUDA error:\n no kernel image")

    check = module._timed("a", broken)
    assert (check.state, check.reasons) == ("failed", ["RuntimeError: CUDA error: no kernel image"])


def test_a_machine_with_too_few_gpus_skips_what_needs_more(tmp_path: Path) -> None:
    inputs = module.Inputs(tmp_path, tmp_path, tmp_path)
    check = module._timed("a", lambda check: module._run(check, SEPARATE, inputs, "process", 1, 0.0, dry=False))
    assert (check.state, check.reasons) == ("skipped", ["needs 2 GPUs, there are 1"])
