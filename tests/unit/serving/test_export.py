"""Export of checkpoints that hold their weights already; shards are merged in tests/e2e."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from codedance_verl.errors import UserError
from codedance_verl.runtime import checkpoints
from codedance_verl.runtime.run_folder import last_step
from codedance_verl.serving.export import export_checkpoint, find_checkpoint
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
    with pytest.raises(UserError, match="no folder of a run with checkpoints"):
        find_checkpoint(tmp_path, None)
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="is there already"):
        export_checkpoint(run, tmp_path / "out")


def test_a_checkpoint_that_was_not_written_to_its_end_is_none(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "actor")
    checkpoints.seal(run / "checkpoints" / "global_step_5")
    fifth = run / "checkpoints" / "global_step_5" / "actor"
    assert find_checkpoint(run, 5) == find_checkpoint(run, None) == fifth
    with pytest.raises(UserError, match=r"no whole checkpoint of step 10; there are: 5$"):
        find_checkpoint(run, 10)
    checkpoints.seal(run / "checkpoints" / "global_step_10")
    (run / "checkpoints" / "global_step_5" / "actor" / "huggingface" / "model.safetensors").write_text("half")
    with pytest.raises(UserError, match=r"no whole checkpoint of step 5; there are: 10$"):
        find_checkpoint(run, 5)


@pytest.mark.parametrize("written", ["", "1\x00"])
def test_a_tracker_that_was_not_written_to_its_end_names_no_step(written: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "actor")
    (run / "checkpoints" / checkpoints.TRACKER).write_text(written)
    assert last_step(run) == 0
    with pytest.raises(UserError, match=r"no checkpoint of step 0; there are: 5, 10$"):
        find_checkpoint(run, None)
    checkpoints.seal(run / "checkpoints" / "global_step_10")
    assert find_checkpoint(run, None).parent.name == "global_step_10"


def test_shards_with_adapters_are_not_exported_without_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """verl's merger writes the weights that training began with, and the adapters to a folder of their own."""

    def merge(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        out = Path(command[command.index("--target_dir") + 1])
        (out / "lora_adapter").mkdir(parents=True)
        (out / "model.safetensors").write_text("as before training")
        return subprocess.CompletedProcess(command, 0, "", "")

    run = make_run(tmp_path / "run", "actor")
    (run / "checkpoints" / "global_step_10" / "actor" / "huggingface" / "model.safetensors").unlink()
    monkeypatch.setattr(subprocess, "run", merge)
    with pytest.raises(UserError, match=r"hold LoRA adapters, .* hf_model among checkpoint\.save_contents"):
        export_checkpoint(run, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))
