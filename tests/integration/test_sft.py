"""SFT through verl's own trainer, on this machine's hardware."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForImageTextToText, AutoProcessor

from codedance_verl.data.demo_set import DemoSizes, make_demo_data
from codedance_verl.models.tiny import build_tiny_model

pytestmark = pytest.mark.slow


def _losses(run_dir: Path) -> list[float]:
    lines = [line for file in sorted((run_dir / "metrics").glob("*.jsonl")) for line in file.read_text().splitlines()]
    return [json.loads(line)["data"]["train/loss"] for line in lines]


def _train(run_dir: Path, data: Path, model: Path, steps: int) -> None:
    command = [sys.executable, "-m", "codedance_verl.sft", f"run_dir={run_dir}", f"data.train_files={data}"]
    command += [f"model.path={model}", f"trainer.total_training_steps={steps}", "trainer.save_freq=6"]
    command += ["optim.lr_scheduler_type=constant", "optim.lr_warmup_steps=2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"trained model: {run_dir / 'model'}" in done.stdout


@pytest.mark.timeout(600)
def test_it_learns_resumes_and_leaves_a_model_that_loads(tmp_path: Path) -> None:
    data = make_demo_data(tmp_path / "data", sizes=DemoSizes(sft=96, rl_train=1, rl_val=1, test=1, blank=0))
    start = build_tiny_model(data.sft, tmp_path / "tiny")
    run_dir = tmp_path / "run"
    _train(run_dir, data.sft, start, steps=6)
    first = _losses(run_dir)
    assert len(first) == 6
    _train(run_dir, data.sft, start, steps=12)
    whole = _losses(run_dir)
    assert len(whole) == 12 and whole[:6] == first
    assert whole[-1] < whole[0] - 1
    _train(run_dir, data.sft, start, steps=12)
    assert len(_losses(run_dir)) == 12
    trained = AutoModelForImageTextToText.from_pretrained(run_dir / "model")
    untrained = AutoModelForImageTextToText.from_pretrained(start)
    assert not trained.lm_head.weight.equal(untrained.lm_head.weight)
    assert AutoProcessor.from_pretrained(run_dir / "model").tokenizer.convert_tokens_to_ids("</code>") is not None
