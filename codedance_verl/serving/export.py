"""`codedance export`: a checkpoint as a Hugging Face folder of its own, with the settings of its training."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from codedance_verl.errors import UserError
from codedance_verl.runtime.atomic import replacing
from codedance_verl.runtime.checkpoints import any_sealed, is_whole, step_of
from codedance_verl.runtime.run_folder import last_step
from codedance_verl.serving.settings import SETTINGS_FILE, settings_document

MERGE_SECONDS = 7200.0


def export(
    run: Annotated[Path, typer.Argument(help="a run's folder")],
    out: Annotated[Path, typer.Argument(help="folder to make")],
    step: Annotated[int | None, typer.Option(help="step of the checkpoint; the last whole one by default")] = None,
) -> None:
    """Writes a checkpoint of a run as a Hugging Face folder that transformers, vLLM and `codedance serve` load."""
    export_checkpoint(run, out, step)
    print(f"exported: {out}")


def export_checkpoint(run: Path, out: Path, step: int | None = None) -> None:
    """Copies a checkpoint's Hugging Face folder, or merges its shards where that has no weights, and adds settings.

    `out` never holds half a model.

    Raises:
        UserError: no such checkpoint, or `out` is there already.
    """
    checkpoint = find_checkpoint(run, step)
    if out.exists():
        raise UserError(f"{out}: is there already; choose another folder or remove it")
    try:
        with replacing(out) as partial:
            if any((checkpoint / "huggingface").glob("*.safetensors")):
                shutil.copytree(checkpoint / "huggingface", partial)
            else:
                _merge(checkpoint, partial)
            if (run / "config.yaml").is_file() and (document := settings_document(run / "config.yaml")):
                (partial / SETTINGS_FILE).write_text(document)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror or error}); free some space") from error


def find_checkpoint(run: Path, step: int | None) -> Path:
    """Returns the folder with shards and `huggingface/` of a step, after RL the actor's; the last whole one by default.

    Raises:
        UserError: no such step; names those there are.
    """
    checkpoints = run / "checkpoints"
    if not checkpoints.is_dir():
        raise UserError(f"{run}: no folder of a run with checkpoints; give the run_dir of one")
    folders: dict[int, Path] = {}
    sealed = any_sealed(checkpoints)
    for path in checkpoints.glob("global_step_*"):
        # a run that seals its checkpoints was writing this one, or was killed while it did
        if sealed and not is_whole(path):
            continue
        folder = path / "actor" if (path / "actor").is_dir() else path
        if (folder / "huggingface").is_dir():  # of older checkpoints only the data loader's state is kept
            folders[step_of(path)] = folder
    last = max(folders, default=0) if sealed else last_step(run)
    chosen = last if step is None else step
    if chosen not in folders:
        steps = ", ".join(map(str, sorted(folders))) or "none"
        raise UserError(f"{run}: no {'whole ' * sealed}checkpoint of step {chosen}; there are: {steps}")
    return folders[chosen]


def _merge(checkpoint: Path, out: Path) -> None:
    """Merges shards by verl's own merger, in a process of its own: it takes the memory of the whole model."""
    command = [sys.executable, "-m", "verl.model_merger", "merge", "--backend", "fsdp", "--local_dir", str(checkpoint)]
    done = subprocess.run(
        [*command, "--target_dir", str(out)], capture_output=True, text=True, timeout=MERGE_SECONDS, check=False
    )
    if done.returncode:
        reason = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise UserError(f"{checkpoint}: its shards cannot be merged: {reason[:300]}")
    # the merger writes adapters beside a base model that lacks them, without an error
    if (out / "lora_adapter").is_dir():
        shutil.rmtree(out)
        raise UserError(
            f"{checkpoint}: its shards hold LoRA adapters, which verl's merger leaves out of the weights; choose "
            "a step that was saved with hf_model among checkpoint.save_contents, where they are merged in"
        )
