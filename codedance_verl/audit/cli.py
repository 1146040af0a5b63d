"""Command `codedance data audit`, which stands beside those of `codedance_verl/datasets/cli.py`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from codedance_verl.datasets.cli import data_app

__all__ = ["data_app"]


@data_app.command("audit")
def audit(
    training: Annotated[list[Path], typer.Argument(help="Parquet files: RL records or demonstrations.")],
    against: Annotated[
        list[str],
        typer.Option(help="NAME=PATH, repeatable: a benchmark's folder, a parquet file of records, or images."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for audit.html and audit.json.")],
    recipe: Annotated[str, typer.Option(help="Recipe whose budgets of tokens the prompts are held against.")] = "",
    model: Annotated[Path | None, typer.Option(help="Folder of the model that counts tokens, with --recipe.")] = None,
) -> None:
    """Finds evaluation images and questions in training files, long prompts, odd answers and unbalanced ones."""
    from codedance_verl.audit.build import findings
    from codedance_verl.audit.comparison import compare
    from codedance_verl.audit.evaluation_items import Against
    from codedance_verl.audit.page import write_page
    from codedance_verl.errors import UserError
    from codedance_verl.runtime.text import visible

    if bool(recipe) != (model is not None):
        raise UserError("--recipe and --model go together: the model's tokenizer counts what the recipe allows")
    sets = [Against.parse(text) for text in against]
    if len({each.name for each in sets}) < len(sets):
        raise UserError("--against names a set twice; give each a name of its own")
    started = time.monotonic()
    try:
        out.mkdir(parents=True, exist_ok=True)  # before hours of work whose result could not be written
        lengths = None
        if model is not None:
            from codedance_verl.audit.lengths import measure_lengths

            lengths = measure_lengths(training, recipe, model)
        compared = compare(training, sets, lambda line: print(line, file=sys.stderr))
        found = findings(compared, training, lengths)
        found.write(out / "audit.json")
        write_page(out / "audit.html", found, compared)
    except OSError as error:
        raise UserError(
            f"cannot write to {out} ({error.strerror or error}); free some space or choose another folder"
        ) from error
    training_side = found.training
    for row in found.sets:
        print(
            f"{row.set}: of {row.items:,} items {row.joint:,} with image and question in the training set, "
            f"{row.image_only:,} with the image alone, {row.question_only:,} with the question alone"
        )
        if row.unreadable:
            print(
                f"{row.set}: {row.unreadable:,} of its images could not be read and were not compared, such as "
                f"{visible(row.faults[0])}"
            )
    if training_side.unreadable_images or training_side.bad_rows:
        print(
            f"training: {training_side.unreadable_images:,} images and {training_side.bad_rows:,} rows could not be "
            f"read and were not compared, such as {visible(training_side.faults[0])}"
        )
    for fault in found.lint:
        print(f"answers: {fault.records:,} records: {fault.fault}")
    print(f"{out / 'audit.html'}; took {time.monotonic() - started:.0f} s")
