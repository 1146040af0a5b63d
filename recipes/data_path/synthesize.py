"""Demonstrations of the filtered questions: `python -m recipes.data_path.synthesize`.

Questions that the teacher answers right without tools, each time, are demonstrated so. Other medium and hard ones are
tried with tools until a trajectory passes all checks; other easy ones are left out.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codedance_verl.data.fields import BadRow, read_source
from codedance_verl.data.parquet import open_parquet, write_rows
from codedance_verl.data.reading import open_rows
from codedance_verl.data.rows import Kind
from codedance_verl.data.schema import SFT_SCHEMA
from codedance_verl.errors import UserError
from codedance_verl.filtering.output import file_of
from codedance_verl.filtering.rule import Stratum
from codedance_verl.serving.cli import end_by_signals
from codedance_verl.synthesis.report import lines_of
from codedance_verl.synthesis.run import synthesize
from codedance_verl.synthesis.settings import Synthesis
from recipes.cpu_demo.environment import BACKENDS
from recipes.cpu_demo.stages import Layout
from recipes.data_path.endpoint import started
from recipes.data_path.models import teacher, tell
from recipes.data_path.paths import SFT, WITH_TOOLS, WITHOUT

DIRECT = 3
"""Answers without tools that have all to be right: a guess among four is so one time in 64."""


@dataclass(frozen=True)
class Part:
    """Strata that are solved alike, with the name of their folder."""

    name: str
    strata: tuple[Stratum, ...]
    synthesis: Synthesis

    def files(self, strata: Path) -> list[Path]:
        """Files of its strata; one that has no question has none."""
        return [path for stratum in self.strata if (path := file_of(strata, stratum)).is_file()]


def parts(tries: int) -> tuple[Part, Part]:
    """Both parts. No kind of code is asked for: the script of the teacher has no ear for it.

    Medium and hard ones are asked without tools too: a weak model after SFT that calls on easy questions often fails on
    them where it may not.
    """
    return (
        Part("tools", WITH_TOOLS, Synthesis(direct=DIRECT, tries=tries, kinds=())),
        Part("direct", WITHOUT, Synthesis(direct=1, tries=0, kinds=())),
    )


def demonstrations(path: Path) -> Iterator[Mapping[str, Any]]:
    """Rows of a file of demonstrations, images in them. Raises UserError: one cannot be read."""
    for read in open_rows(path, Kind.DEMONSTRATIONS).read():
        if read.row is None:
            raise UserError(f"{path} row {read.number}: {read.fault}; remove its folder and run the stage again")
        try:
            images = [{"bytes": read_source(source, "images")} for source in read.row.sources]
        except BadRow as fault:
            raise UserError(f"{path} row {read.number}: {fault}; remove its folder and run the stage again") from None
        messages = [{"role": message.role, "content": message.content} for message in read.row.messages]
        yield {"messages": messages, "images": images, **read.row.extra_info}


def join(out: Path, tries: int) -> int:
    """Writes the demonstrations of both parts into one file; returns their number.

    Raises UserError: there are none.
    """
    made = [path for part in parts(tries) if (path := out / part.name / SFT).is_file()]
    write_rows(out / SFT, (row for path in made for row in demonstrations(path)), SFT_SCHEMA)
    count = int(open_parquet(out / SFT).metadata.num_rows)
    if not count:
        raise UserError(f"{out}: no trajectory passed the checks; {out / 'tools' / 'report.html'} shows them")
    return count


def main(arguments: list[str] | None = None) -> int:
    """Command-line entry; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m recipes.data_path.synthesize", description="Makes demonstrations.")
    parser.add_argument("--pool", type=Path, required=True, help="file of questions")
    parser.add_argument("--strata", type=Path, required=True, help="folder of the filter")
    parser.add_argument("--demo", type=Path, required=True, help="folder of a finished demo")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; run again, it goes on")
    parser.add_argument("--tries", type=int, required=True, help="trajectories for a question, until one is kept")
    parser.add_argument("--sandbox", choices=BACKENDS, default="auto")
    options = parser.parse_args(arguments)
    end_by_signals()
    try:
        with started(open_parquet(options.pool).metadata.num_rows) as url:
            for part in parts(options.tries):
                if not (files := part.files(options.strata)):
                    continue
                asked = teacher(Layout(options.demo), options.out / part.name, files, options.sandbox, url)
                print("\n".join(lines_of(asyncio.run(synthesize(asked, part.synthesis, tell)))))
        print(f"{join(options.out, options.tries):,} demonstrations: {options.out / SFT}")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
