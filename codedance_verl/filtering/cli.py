"""Command `codedance data filter`, which stands beside those of `codedance_verl/audit/cli.py`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codedance_verl.audit.cli import data_app

if TYPE_CHECKING:
    from codedance_verl.harness.settings import EvalSettings

__all__ = ["data_app"]

TEMPERATURE = 1.0
"""Of both models, where `eval.temperature` is not given: samples of one question are to differ."""

_MODEL = "A run's folder, a Hugging Face folder, or the model's name at the endpoint."
_ENDPOINT = "Its base URL: `codedance serve` or any OpenAI server."


@data_app.command("filter")
def filter_command(
    questions: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE... [KEY=VALUE...]",
            help="Parquet files of RL records; keys of conf/eval.yaml for both models, or weak.KEY and strong.KEY.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the strata, the report and all replies; run again, it goes on.")],
    weak: Annotated[str, typer.Option(help=_MODEL)],
    strong: Annotated[str, typer.Option(help=_MODEL)],
    weak_endpoint: Annotated[str | None, typer.Option(help=_ENDPOINT)] = None,
    strong_endpoint: Annotated[str | None, typer.Option(help=_ENDPOINT)] = None,
    weak_samples: Annotated[int, typer.Option(min=1, help="Samples without tools, at most.")] = 8,
    weak_tool_samples: Annotated[int, typer.Option(min=0, help="Samples with tools, at most; 0 for none.")] = 8,
    strong_samples: Annotated[int, typer.Option(min=1, help="Samples without tools, at most.")] = 8,
    strong_tool_samples: Annotated[int, typer.Option(min=0, help="Samples with tools, at most; 0 for none.")] = 8,
    easy: Annotated[float, typer.Option(help="Share of right samples from which the weak model solves it.")] = 0.75,
    medium: Annotated[float, typer.Option(help="Share of right samples from which the strong one does.")] = 0.5,
    plan: Annotated[bool, typer.Option("--plan", help="Say what it may cost, and end.")] = False,
    images: Annotated[Path | None, typer.Option(help="Folder of stored images; `images` in --out without it.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that write; one a core without it.")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave bad rows out and list them.")] = False,
) -> None:
    """Divides questions into easy, medium, hard and unanswerable by samples of a weak and a strong model."""
    # imported here, so that `--help` does not wait for it
    from codedance_verl.datasets.pool import default_workers
    from codedance_verl.filtering.rule import Arm, Rule
    from codedance_verl.filtering.run import FilterSettings, filter_records, plan_lines
    from codedance_verl.filtering.strata import lines_of
    from codedance_verl.serving.cli import end_by_signals

    numbers = (weak_samples, weak_tool_samples, strong_samples, strong_tool_samples)
    rule = Rule(dict(zip(Arm, numbers, strict=True)), easy, medium)
    # the path of a file may hold `=` too
    files = [text for text in questions if "=" not in text or Path(text).is_file()]
    keys = [text for text in questions if text not in files]
    models = {
        "weak": _model("weak", weak, weak_endpoint, out, files, keys),
        "strong": _model("strong", strong, strong_endpoint, out, files, keys),
    }
    settings = FilterSettings(
        tuple(map(Path, files)), out, models, rule, images, workers or default_workers(), skip_bad
    )
    if plan:
        for line in plan_lines(settings, _tell):
            print(line)
        return
    end_by_signals()
    for line in lines_of(asyncio.run(filter_records(settings, _tell))):
        print(line)
    print(f"written: {out}")


def _model(
    name: str, model: str, endpoint: str | None, out: Path, files: Sequence[str], keys: Sequence[str]
) -> EvalSettings:
    """Settings of a model: keys of both, then its own. Raises UserError: a key or a value is none."""
    from codedance_verl.harness import settings
    from codedance_verl.harness.cli import overrides_of

    other = {"weak": "strong.", "strong": "weak."}[name]
    shared = [key for key in keys if not key.startswith((other, f"{name}."))]
    own = [key.removeprefix(f"{name}.") for key in keys if key.startswith(f"{name}.")]
    given = overrides_of({"model": model, "out": out, "endpoint": endpoint}, [*files, *shared, *own])
    # in front: a temperature of the command line comes later, and counts
    return settings.load([f"eval.temperature={TEMPERATURE}", *given])


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
