"""Commands of `codedance data`: make the demo's files, check any files."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from recipes.cpu_demo.demo_sizes import DEMO_KINDS, DemoSizes

data_app = typer.Typer(help="Make and check data files.", no_args_is_help=True)


@data_app.command("make")
def make(
    out: Annotated[Path, typer.Option(help="Folder for sft, rl_train, rl_val and test .parquet.")],
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same files.")] = 0,
    sft: Annotated[int, typer.Option(min=1, help="Demonstrations.")] = DemoSizes.sft,
    rl_train: Annotated[int, typer.Option(min=1, help="Training questions.")] = DemoSizes.rl_train,
    rl_val: Annotated[int, typer.Option(min=1, help="Validation questions.")] = DemoSizes.rl_val,
    test: Annotated[int, typer.Option(min=1, help="Held-out questions, each once sampled and once greedy.")] = (
        DemoSizes.test
    ),
    blank: Annotated[int, typer.Option(min=0, help="Of those, how many also with a blank image.")] = DemoSizes.blank,
    controls: Annotated[
        int, typer.Option(min=0, help="Of those, how many also greedily under each intervention (docs/data.md).")
    ] = DemoSizes.controls,
    kinds: Annotated[
        list[str] | None, typer.Option("--kind", help="Task kind, repeatable: those of docs/data.md.")
    ] = None,
) -> None:
    """Makes demonstrations for SFT, questions for RL and a held-out test set."""
    from recipes.cpu_demo.demo_set import make_demo_data  # its libraries take seconds to import

    started = time.monotonic()
    sizes = DemoSizes(sft=sft, rl_train=rl_train, rl_val=rl_val, test=test, blank=blank, controls=controls)
    files = make_demo_data(out, seed, sizes, tuple(kinds or DEMO_KINDS))
    styles = ", ".join(f"{count} {style}" for style, count in sorted(files.styles.items()))
    print(f"{out}: {sft} demonstrations ({styles}), {rl_train} + {rl_val} RL questions, {test} test questions")
    print(f"took {time.monotonic() - started:.0f} s")


@data_app.command("check")
def check(
    files: Annotated[list[Path], typer.Argument(help="Parquet files: RL records or demonstrations.")],
    skip_bad_records: Annotated[bool, typer.Option(help="List bad rows instead of stopping at the first.")] = False,
    prompt_key: Annotated[str, typer.Option(help="Column of the messages, as data.prompt_key.")] = "prompt",
    image_key: Annotated[str, typer.Option(help="Column of the images, as data.image_key.")] = "images",
) -> None:
    """Reads every record of the files, images included, and says what is wrong with them."""
    from codedance_verl.data.checking import check_file, progress_line
    from codedance_verl.data.rows import Keys

    for file in files:
        started = time.monotonic()
        found = check_file(file, skip_bad_records, keys=Keys(prompt_key, image_key), progress=progress_line(file.name))
        for line in found.lines:
            print(f"skipped {line}")
        for note in found.notes:
            print(f"note: {note}")
        rate = (found.good + len(found.lines)) / (time.monotonic() - started)
        print(f"{file}: {found.good} good records, {len(found.lines)} bad ({rate:.0f} records a second)")
