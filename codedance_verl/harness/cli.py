"""`codedance eval MODEL BENCHMARK...` and `codedance eval compare A B`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import click
import typer
from typer.core import TyperGroup

_BENCHMARKS = (
    "names of benchmarks, parquet files of questions, and keys of conf/eval.yaml, e.g. eval.temperature=1 "
    "environment.max_turns=10"
)


class _RunByDefault(TyperGroup):
    """Group whose command `run` need not be named."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        return super().resolve_command(ctx, args if args[0] in self.commands else ["run", *args])


eval_app = typer.Typer(cls=_RunByDefault, no_args_is_help=True, pretty_exceptions_enable=False)


@eval_app.command()
def run(
    model: Annotated[str, typer.Argument(help="a run's folder, a Hugging Face folder, a name on the Hub or endpoint")],
    benchmarks: Annotated[
        list[str],
        typer.Argument(metavar="BENCHMARK... [KEY=VALUE...]", help=_BENCHMARKS),
    ],
    data: Annotated[
        str | None, typer.Option(help="folder with a folder of files for each benchmark; or a dataset's name")
    ] = None,
    out: Annotated[Path, typer.Option(help="folder of records, scores and report; run again, it continues")] = Path(
        "outputs/eval"
    ),
    endpoint: Annotated[str | None, typer.Option(help="base URL of `codedance serve` or any OpenAI server")] = None,
    control: Annotated[str | None, typer.Option(help="no_tools, forced_tools, grey_observations or blank")] = None,
    samples: Annotated[int, typer.Option(min=1, help="replies to an item")] = 1,
    plan: Annotated[bool, typer.Option("--plan", help="say what is on record and what is left, and end")] = False,
) -> None:
    """Asks a model the items of benchmarks, scores the replies, and writes a report."""
    from codedance_verl.harness import settings
    from codedance_verl.serving.cli import end_by_signals

    names = [name for name in benchmarks if "=" not in name]
    given: dict[str, object] = {"model": model, "data": data, "out": out, "endpoint": endpoint, "control": control}
    overrides = [f"eval.{name}={_quoted(str(value))}" for name, value in given.items() if value is not None]
    overrides += [f"eval.benchmarks=[{','.join(map(_quoted, names))}]", f"eval.samples={samples}"]
    loaded = settings.load([*overrides, *(name for name in benchmarks if "=" in name)])
    if plan:
        _tell_plans(loaded)
        return
    end_by_signals()
    from codedance_verl.harness.run import evaluate

    asyncio.run(evaluate(loaded, _tell))


def _tell_plans(loaded: object) -> None:
    from codedance_verl.harness.run import plans
    from codedance_verl.harness.settings import EvalSettings

    assert isinstance(loaded, EvalSettings)
    for benchmark, plan in plans(loaded, _tell):
        asked = benchmark.count * loaded.evaluation.samples
        done = f"{plan.done:,} on record, {plan.left:,} left" if plan is not None else "none on record"
        print(f"{benchmark.task.name}: {benchmark.count:,} items, {asked:,} samples, {done}")


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _quoted(value: str) -> str:
    """Value of an override that Hydra's grammar reads as this text."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
