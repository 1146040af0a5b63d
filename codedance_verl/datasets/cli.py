"""Commands of `codedance data`: make the demo's files, generate, check, convert, count, sample, split, mix and show."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recipes.cpu_demo.demo_sizes import DEMO_KINDS, DemoSizes

if TYPE_CHECKING:
    from codedance_verl.datasets.commands import Options
    from codedance_verl.datasets.parts import Tally

Files = Annotated[list[Path], typer.Argument(help="Parquet files of records, all of one kind.")]
Out = Annotated[Path, typer.Option(help="Parquet file that is made.")]
Images = Annotated[Path | None, typer.Option(help="Folder of stored images; `images` beside the output without it.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes; one a core without it.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave bad rows out and list them.")]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same output.")]

data_app = typer.Typer(help="Make, generate, check, convert and mix data files.", no_args_is_help=True)


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


@data_app.command("generate")
def generate(
    kinds: Annotated[list[str], typer.Argument(help="Kinds of questions, in turn: those of docs/data.md.")],
    out: Out,
    level: Annotated[
        list[int] | None, typer.Option(help="Difficulty from 1 to 5, repeatable: in turn; 2 without it.")
    ] = None,
    dial: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE, repeatable: a dial in place of that of the level.")
    ] = None,
    records: Annotated[int, typer.Option(min=1, help="Records of the file.")] = 1_000,
    seed: Seed = 0,
    split_name: Annotated[
        str, typer.Option("--split", help="train, val or test; test has wordings of its own.")
    ] = "train",
    view_pixels: Annotated[
        int | None, typer.Option(min=784, help="environment.max_image_pixels of the model, by which needs_code goes.")
    ] = None,
    images: Images = None,
    workers: Workers = None,
) -> None:
    """Generates questions with exact answers, evidence and a chosen difficulty."""
    from codedance_verl.datasets.generate import Order
    from codedance_verl.datasets.generate import generate as make_records
    from codedance_verl.datasets.pool import default_workers
    from codedance_verl.generators.kinds import VIEW_PIXELS

    started = time.monotonic()
    levels, view = tuple(level or (2,)), view_pixels or VIEW_PIXELS
    order = Order(tuple(kinds), levels, tuple(dial or ()), records, seed, split_name, view)
    _report(out, make_records(order, out, images, workers or default_workers()))
    print(f"took {time.monotonic() - started:.0f} s")


@data_app.command("check")
def check(
    files: Annotated[list[Path], typer.Argument(help="Parquet files: RL records or demonstrations.")],
    skip_bad_records: Annotated[
        bool, typer.Option("--skip-bad-records", "--skip-bad", help="List bad rows instead of stopping at the first.")
    ] = False,
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


@data_app.command("convert")
def convert(
    files: Annotated[list[Path], typer.Argument(help="Files of one published set: parquet, JSON or JSON lines.")],
    out: Out,
    source: Annotated[str, typer.Option("--from", help="Name of the set (docs/data.md); found without it.")] = "",
    image_folder: Annotated[
        Path | None, typer.Option(help="Folder of images that rows name by SHA-256, or by path outside the file's.")
    ] = None,
    instructions: Annotated[
        str, typer.Option(help="Write the instructions of this turn format as system message; not at all without it.")
    ] = "",
    any_path: Annotated[bool, typer.Option("--any-path", help="Copy images from wherever a path leads.")] = False,
    images: Images = None,
    workers: Workers = None,
    skip_bad: SkipBad = False,
) -> None:
    """Converts a published set: records in this project's layout, each image stored once."""
    from codedance_verl.datasets import commands

    options = _options(out, images, workers, skip_bad)
    tally = commands.convert(files, options, source, image_folder, instructions, any_path)
    _report(out, tally)
    if tally.missing:
        print(f"{len(tally.missing)} images are missing: SHA-256 and address of each in {out.stem}.missing.tsv")


@data_app.command("stats")
def stats(
    files: Files,
    json_out: Annotated[Path | None, typer.Option("--json", help="File for the counts as JSON.")] = None,
    workers: Workers = None,
    skip_bad: SkipBad = False,
) -> None:
    """Counts records, labels, images and their sizes, lengths and answers."""
    import json

    from codedance_verl.datasets.commands import check_files, progress_of, write_result
    from codedance_verl.datasets.pieces import pieces_of
    from codedance_verl.datasets.pool import default_workers
    from codedance_verl.datasets.stats import gather, lines_of

    check_files(files, [json_out] if json_out is not None else [])
    pieces = pieces_of(files)
    found = gather(pieces, workers or default_workers(), skip_bad, progress_of(files))
    for line in found.lines:
        print(f"skipped {line}")
    document = found.document()
    for line in lines_of(document):
        print(line)
    if json_out is not None:
        write_result(json_out, json.dumps(document, indent=2, ensure_ascii=False) + "\n")


@data_app.command("sample")
def sample(
    files: Files,
    out: Out,
    records: Annotated[int | None, typer.Option(min=1, help="Records to draw; all without it.")] = None,
    seed: Seed = 0,
    images: Images = None,
    workers: Workers = None,
    skip_bad: SkipBad = False,
) -> None:
    """Draws records without replacement, in their order; all of them, in small row groups, without --records."""
    from codedance_verl.datasets import commands

    _report(out, commands.sample(files, _options(out, images, workers, skip_bad), records, seed))


@data_app.command("split")
def split(
    files: Files,
    out: Annotated[Path, typer.Option(help="Folder for train.parquet and val.parquet.")],
    val: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of validation.")] = 0.02,
    by: Annotated[
        str, typer.Option(help="What stays on one side: image (a record's first one), question or record.")
    ] = "image",
    seed: Seed = 0,
    images: Images = None,
    workers: Workers = None,
    skip_bad: SkipBad = False,
) -> None:
    """Divides records into training and validation, all records whose first image is the same on one side."""
    from codedance_verl.datasets import commands
    from codedance_verl.datasets.select import SPLIT_BY
    from codedance_verl.errors import UserError

    if by not in SPLIT_BY:
        raise UserError(f"--by is {by}; must be one of {', '.join(SPLIT_BY)}")
    _report(out, commands.split(files, _options(out, images, workers, skip_bad), val, by, seed))


@data_app.command("mix")
def mix(
    files: Annotated[list[str], typer.Argument(help="Record files, each as FILE or FILE=WEIGHT.")],
    out: Out,
    records: Annotated[int | None, typer.Option(min=1, help="Records of the mixture (docs/data.md).")] = None,
    curriculum: Annotated[str, typer.Option(help="Strata of difficulty in their order: easy,medium,hard.")] = "",
    seed: Seed = 0,
    images: Images = None,
    workers: Workers = None,
    skip_bad: SkipBad = False,
) -> None:
    """Mixes files by weight, shuffled, or stratum by stratum."""
    from codedance_verl.datasets import commands
    from codedance_verl.datasets.mix import parse_share

    strata = [name.strip() for name in curriculum.split(",") if name.strip()]
    shares = [parse_share(text) for text in files]
    _report(out, commands.mix(shares, _options(out, images, workers, skip_bad), records, strata, seed))


@data_app.command("show")
def show(
    file: Annotated[Path, typer.Argument(help="Parquet file of records.")],
    row: Annotated[int, typer.Option(min=0, help="First row that is shown.")] = 0,
    rows: Annotated[int, typer.Option(min=1, max=200, help="Rows that are shown.")] = 10,
    out: Annotated[Path | None, typer.Option(help="HTML file; FILE.html beside the file without it.")] = None,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
) -> None:
    """Shows records with their images as a page in a browser."""
    import webbrowser

    from codedance_verl.datasets.commands import check_files, write_result
    from codedance_verl.datasets.show import is_page, page, rows_of
    from codedance_verl.errors import UserError

    target = out or file.with_suffix(".html")
    check_files([file], [target])
    if out is None and target.exists() and not is_page(target):
        raise UserError(f"{target} is there and was not made by this command; name another file with --out")
    write_result(target, page(file, rows_of(file, row, rows)))
    print(target)
    if browser:
        webbrowser.open(target.absolute().as_uri())


def _options(out: Path, images: Path | None, workers: int | None, skip_bad: bool) -> Options:
    from codedance_verl.datasets.commands import Options
    from codedance_verl.datasets.pool import default_workers

    return Options(out, images, workers or default_workers(), skip_bad)


def _report(out: Path, tally: Tally) -> None:
    for line in tally.lines:
        print(f"skipped {line}")
    made = ", ".join(f"{count} {name}" for name, count in sorted(tally.made.items()) if name in ("train", "val"))
    print(f"{out}: {sum(tally.made.values())} records{f' ({made})' if made else ''}, {tally.bad} bad rows left out")
