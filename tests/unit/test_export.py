"""Export of checkpoints that hold their weights already; shards are merged in tests/e2e."""

from __future__ import annotations

from pathlib import Path

import pytest

from codedance_verl.errors import UserError
from codedance_verl.export import export_checkpoint, find_checkpoint
from codedance_verl.serving.settings import SETTINGS_FILE


def make_run(folder: Path, part: str) -> Path:
    for step in (5, 10):
        hugging_face = folder / "checkpoints" / f"global_step_{step}" / part / "huggingface"
        hugging_face.mkdir(parents=True)
        (hugging_face / "config.json").write_text("{}")
        (hugging_face / "model.safetensors").write_text(f"weights of {step}")
    (folder / "checkpoints" / "global_step_2").mkdir()  # what is left of a checkpoint that was dropped
    (folder / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("10")
    (folder / "config.yaml").write_text("environment: {max_turns: 3}\nsandbox: {preload: full, containers: 4}\n")
    return folder


@pytest.mark.parametrize("part", ["actor", ""])
def test_the_weights_of_a_step_with_the_settings_of_the_run(tmp_path: Path, part: str) -> None:
    run = make_run(tmp_path / "run", part)
    export_checkpoint(run, tmp_path / "last")
    export_checkpoint(run, tmp_path / "fifth", step=5)
    assert (tmp_path / "last" / "model.safetensors").read_text() == "weights of 10"
    assert (tmp_path / "fifth" / "model.safetensors").read_text() == "weights of 5"
    document = (tmp_path / "last" / SETTINGS_FILE).read_text()
    assert document == "environment:\n  max_turns: 3\nsandbox:\n  preload: full\n"


def test_nothing_is_overwritten_and_steps_are_named(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "actor")
    with pytest.raises(UserError, match=r"no checkpoint of step 2; there are: 5, 10"):
        find_checkpoint(run, 2)
    with pytest.raises(UserError, match="there are: none"):
        find_checkpoint(tmp_path, None)
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="is there already"):
        export_checkpoint(run, tmp_path / "out")
