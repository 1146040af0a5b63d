"""`codedance plot` draws what a run recorded, and says so where there is nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from codedance_verl.errors import UserError
from codedance_verl.evaluation.curves import draw
from tests.unit.evaluation.experiment import make_training


def _with_metrics(run: Path, steps: int) -> Path:
    (run / "metrics").mkdir(parents=True, exist_ok=True)
    lines = [
        {"step": step, "data": {"timing_s/step": 9.0, "timing_s/gen": 5.0, "actor/entropy": 1 / step}}
        for step in range(1, steps + 1)
    ]
    (run / "metrics" / "0000.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def test_a_run_with_a_trajectory_log_shows_more_than_one_without(tmp_path: Path) -> None:
    make_training(tmp_path / "full")
    bare, full = _with_metrics(tmp_path / "bare", 3), _with_metrics(tmp_path / "full", 3)
    inks = []
    for run in (bare, full):
        assert draw(run, run / "curves.png") == 3
        pixels = np.asarray(Image.open(run / "curves.png").convert("RGB"))
        assert pixels.shape == (880, 1650, 3)
        inks.append(int((np.ptp(pixels.astype(int), axis=2) > 40).sum()))
    assert inks[1] > inks[0] > 0


@pytest.mark.parametrize("name", ["nothing", "missing"])
def test_a_folder_without_a_step_is_an_error_that_names_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UserError, match=f"{name}: no metrics of a training step"):
        draw(tmp_path / name, tmp_path / "curves.png")


def test_a_picture_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    run = _with_metrics(tmp_path / "run", 1)
    with pytest.raises(UserError, match=r"gone.curves\.png: "):
        draw(run, tmp_path / "gone" / "curves.png")
