"""Command `codedance data synthesize`, which stands beside those of `codedance_verl/filtering/cli.py`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from codedance_verl.filtering.cli import data_app

__all__ = ["data_app"]

TEMPERATURE = 0.7
"""Of the teacher, where `eval.temperature` is not given: tries of one question are to differ."""


@data_app.command("synthesize")
def synthesize(
    questions: Annotated[
        list[str],
        typer.Argument(metavar="FILE... [KEY=VALUE...]", help="Parquet files of RL records; keys of conf/eval.yaml."),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for sft.parquet, the report and all records; run again, it goes on.")
    ],
    teacher: Annotated[
        str, typer.Option(help="A run's folder, a Hugging Face folder, or the model's name at the endpoint.")
    ],
    endpoint: Annotated[str | None, typer.Option(help="Base URL of `codedance serve` or any OpenAI server.")] = None,
    direct: Annotated[int, typer.Option(min=0, help="Answers without tools; a question that all solve is easy.")] = 2,
    tries: Annotated[int, typer.Option(min=0, help="Trajectories for any other question, until one is kept.")] = 3,
    kinds: Annotated[
        str, typer.Option(help="Kinds that are asked for in turn, or any.")
    ] = "visual,computation,drawing",
    most_failed_calls: Annotated[int, typer.Option(min=0, help="Calls that may fail, the last one aside.")] = 0,
    least_cover: Annotated[float, typer.Option(help="Part of a region that a crop has to hold.")] = 0.9,
    largest_box: Annotated[float, typer.Option(help="Part of the image that this crop may have.")] = 0.5,
    plan: Annotated[bool, typer.Option("--plan", help="Say what it may cost and what is on record, and end.")] = False,
    ask: Annotated[bool, typer.Option(help="Without it nothing is asked: what is on record is checked.")] = True,
) -> None:
    """Has a teacher solve questions in the environment, and keeps as demonstrations what passes all checks."""
    # imported here, so that `--help` does not wait for it
    from codedance_verl.harness import settings
    from codedance_verl.harness.cli import overrides_of
    from codedance_verl.serving.cli import end_by_signals
    from codedance_verl.synthesis.report import lines_of
    from codedance_verl.synthesis.run import files_of, plan_lines
    from codedance_verl.synthesis.run import synthesize as run
    from codedance_verl.synthesis.settings import Rules, Synthesis, kinds_of

    rules = Rules(most_failed_calls, least_cover, largest_box)
    synthesis = Synthesis(direct, tries, kinds_of(kinds), rules)
    given = overrides_of({"model": teacher, "out": out, "endpoint": endpoint}, questions)
    # in front: a temperature of the command line comes later, and counts
    loaded = settings.load([f"eval.temperature={TEMPERATURE}", *given])
    if plan:
        for line in plan_lines(loaded, synthesis, _tell):
            print(line)
        return
    end_by_signals()
    report = asyncio.run(run(loaded, synthesis, _tell, ask))
    for line in lines_of(report):
        print(line)
    print(f"written: {', '.join(map(str, files_of(out)))}")


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
