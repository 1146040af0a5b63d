"""Tables, plot and JSON of an ablation, from the results there are: `python -m recipes.ablation.table`.

It can be called at any time, while the runs go on too: methods are compared over the seeds that all of them have, and
runs beyond these are listed. `--document` puts tables and plot into a document, between two marks.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from codedance_verl.errors import UserError
from codedance_verl.runtime.atomic import write_atomically
from recipes.ablation.comparison import Comparison, compare
from recipes.ablation.plot import draw
from recipes.ablation.results import Result, is_kept, read_result, result_file, start_file
from recipes.ablation.variants import DEFAULT, Variant, chosen
from recipes.ablation.words import markdown, verdict
from recipes.cpu_demo.stages import parse_seeds

DEFAULT_SEEDS = "0,1,2,3,4"
BEGIN, END = "<!-- results -->", "<!-- end of results -->"


def read_comparison(folder: Path, variants: Sequence[Variant], seeds: Sequence[int]) -> Comparison:
    """The comparison of what has been measured so far.

    Raises:
        UserError: nothing has, or two results cannot be compared.
    """
    files = {
        variant.name: {seed: path for seed in seeds if is_kept(path := result_file(folder, variant.name, seed))}
        for variant in variants
    }
    found = {name: {seed: read_result(path) for seed, path in paths.items()} for name, paths in files.items()}
    start = read_result(start_file(folder)) if is_kept(start_file(folder)) else None
    _check_origins(files, found)
    asked = {result.origin.questions for results in found.values() for result in results.values()}
    if start is not None and asked and start.origin.questions not in asked:
        raise UserError(f"{start_file(folder)}: answers other questions than the runs; delete it and run it again")
    try:
        return compare(found, start, seeds)
    except UserError as error:
        raise UserError(f"{folder}: {error}") from None


def _check_origins(files: dict[str, dict[int, Path]], found: dict[str, dict[int, Result]]) -> None:
    first = next((result.origin for results in found.values() for result in results.values()), None)
    for name, results in found.items():
        for seed, result in results.items():
            if first and (result.origin.steps, result.origin.questions) != (first.steps, first.questions):
                path = files[name][seed]
                raise UserError(f"{path}: trained or asked otherwise than the first one; delete it and run it again")


def write(comparison: Comparison, out: Path) -> None:
    """Writes `ablation.json`, `ablation.md` and `ablation.png` into the folder, which is made if need be."""
    out.mkdir(parents=True, exist_ok=True)
    facts = {**asdict(comparison), "verdict": verdict(comparison)}
    write_atomically(out / "ablation.json", json.dumps(facts, indent=1) + "\n")
    write_atomically(out / "ablation.md", markdown(comparison))
    draw(comparison, out / "ablation.png")


def insert(comparison: Comparison, document: Path) -> None:
    """Puts the tables between the marks of a document, and the plot into `pictures/` beside it. Raises UserError."""
    text = document.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise UserError(f"{document}: must have one line {BEGIN} and after it one line {END}")
    picture = document.parent / "pictures" / "ablation.png"
    picture.parent.mkdir(exist_ok=True)
    draw(comparison, picture)
    before, after = text[: text.index(BEGIN)], text[text.index(END) :]
    shown = f"![A panel a column; dots are seeds, bars 95 % intervals](pictures/{picture.name})"
    write_atomically(document, f"{before}{BEGIN}\n{markdown(comparison)}\n{shown}\n{after}")


def main(arguments: list[str] | None = None) -> int:
    """Command-line entry; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m recipes.ablation.table", description="Writes the tables and the plot of what has been measured."
    )
    parser.add_argument("--results", type=Path, required=True, help="folder of the results of the runs")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--variants", default=DEFAULT, help="names separated by commas, all, or default")
    parser.add_argument("--seeds", default=DEFAULT_SEEDS, help=f"seeds there should be (default: {DEFAULT_SEEDS})")
    parser.add_argument("--document", type=Path, help="document to put the tables into")
    options = parser.parse_args(arguments)
    try:
        comparison = read_comparison(options.results, chosen(options.variants), parse_seeds(options.seeds))
        write(comparison, options.out)
        if options.document:
            insert(comparison, options.document)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
