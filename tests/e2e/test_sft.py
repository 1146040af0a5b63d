"""SFT through verl's own trainer, on this machine's hardware."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoModelForImageTextToText, AutoProcessor

from tests.e2e.conftest import FIRST_PART, SFT_STEPS, ColdStart, run_main, run_sft, sft_losses

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(1200)]


def test_it_learns_and_resumes(cold_start: ColdStart) -> None:
    losses = sft_losses(cold_start.sft)
    assert len(losses) == SFT_STEPS
    assert losses[:FIRST_PART] == cold_start.first_losses
    assert losses[FIRST_PART] < losses[0] - 1, "the second part began anew"
    assert sum(losses[-10:]) < sum(losses[FIRST_PART - 10 : FIRST_PART])


def test_a_finished_run_is_left_as_it_is(cold_start: ColdStart) -> None:
    run_sft(cold_start.data, cold_start.tiny, cold_start.sft, SFT_STEPS)
    assert len(sft_losses(cold_start.sft)) == SFT_STEPS


def test_two_ranks_leave_one_model(cold_start: ColdStart, tmp_path: Path) -> None:
    """Trained, and called again when there is nothing left to do."""
    command = ("--standalone", "--nproc_per_node=2", "-m", "codedance_verl.sft", f"run_dir={tmp_path / 'run'}")
    data = (f"data.train_files={cold_start.data / 'sft.parquet'}", f"model.path={cold_start.tiny}")
    settings = ("trainer.n_gpus_per_node=2", "data.micro_batch_size_per_gpu=8", "trainer.total_training_steps=3")
    for _ in range(2):
        done = run_main("torch.distributed.run", *command, *data, *settings, "trainer.save_freq=1")
        assert done.returncode == 0
        assert done.stdout.count("trained model: ") == 1
        AutoModelForImageTextToText.from_pretrained(tmp_path / "run" / "model")
    assert len(sft_losses(tmp_path / "run")) == 3
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").glob("global_step_*"))
    assert kept == ["global_step_2", "global_step_3"]


def test_the_model_it_leaves_loads(cold_start: ColdStart) -> None:
    trained = AutoModelForImageTextToText.from_pretrained(cold_start.model)
    untrained = AutoModelForImageTextToText.from_pretrained(cold_start.tiny)
    assert not trained.lm_head.weight.equal(untrained.lm_head.weight)
    tokenizer = AutoProcessor.from_pretrained(cold_start.model).tokenizer
    assert tokenizer.convert_tokens_to_ids("</code>") is not None
