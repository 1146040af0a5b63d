"""`codedance eval MODEL BENCHMARK...` and `codedance eval compare A B`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from codedance_verl.harness.settings import EvalSettings

_BENCHMARKS = (
    "names of benchmarks, parquet files of questions, and keys of conf/eval.yaml, e.g. eval.temperature=1 "
    "environment.max_turns=10"
)


class _RunByDefault(TyperGroup):
    """Group whose command `run` need not be named."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
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
    judge_agreement: Annotated[
        int, typer.Option(min=0, help="items on which the judge is compared with the official score; 0 for none")
    ] = 0,
    beside: Annotated[
        list[Path] | None, typer.Option(help="folder of a run of the same model under a control; shown beside this one")
    ] = None,
    score_only: Annotated[bool, typer.Option("--score-only", help="score and report what is on record")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="say what is on record and what is left, and end")] = False,
) -> None:
    """Asks a model the items of benchmarks, scores the replies, and writes a report."""
    # imported here and below, so that `--help` does not wait for it
    from codedance_verl.harness import settings
    from codedance_verl.serving.cli import end_by_signals

    given: dict[str, object] = {"model": model, "data": data, "out": out, "endpoint": endpoint, "control": control}
    overrides = overrides_of(
        {**given, "samples": samples, "judge_agreement": judge_agreement, "score_only": score_only}, benchmarks
    )
    if beside:
        overrides.append(f"eval.beside=[{','.join(_quoted(str(folder)) for folder in beside)}]")
    loaded = settings.load(overrides)
    if plan:
        _tell_plans(loaded)
        return
    end_by_signals()
    from codedance_verl.harness.run import evaluate

    asyncio.run(evaluate(loaded, _tell))


@eval_app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="output folder of an evaluation")],
    b: Annotated[Path, typer.Argument(help="output folder of another one, of the same questions")],
    every_figure: Annotated[bool, typer.Option(help="all figures, not only the one usually quoted")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="compare what was asked under other settings, and say so")
    ] = False,
) -> None:
    """Compares two evaluations question by question, and says what can be said."""
    from codedance_verl.harness.comparing import compare_runs, lines

    print("\n".join(lines(compare_runs(a, b, force, every_figure))))


@eval_app.command()
def faithfulness(
    out: Annotated[Path, typer.Argument(help="output folder of an evaluation")],
    benchmarks: Annotated[list[str], typer.Argument(metavar="BENCHMARK... [KEY=VALUE...]", help=_BENCHMARKS)],
    data: Annotated[str | None, typer.Option(help="folder of the files, as for the evaluation")] = None,
    replies: Annotated[int, typer.Option(min=1, help="replies of each benchmark whose calls run again")] = 100,
) -> None:
    """Runs calls on record again with the evidence altered: which were used, unused, decorative or hard-coded."""
    from codedance_verl.harness import settings
    from codedance_verl.harness.faithfulness_run import faithfulness_of

    given = {"model": "on record", "out": out, "data": data}
    loaded = settings.load(overrides_of(given, benchmarks))
    asyncio.run(faithfulness_of(loaded, replies, _tell))


def overrides_of(given: Mapping[str, object], benchmarks: Sequence[str]) -> list[str]:
    """Overrides of what was given by argument, then of the keys among the benchmarks, which go before."""
    # the path of a file may hold `=` too
    names = [name for name in benchmarks if "=" not in name or Path(name).is_file()]
    overrides = [
        # numbers and switches bare: Hydra reads a quoted one as a text
        f"eval.{name}={value if isinstance(value, int) else _quoted(str(value))}"
        for name, value in given.items()
        if value is not None
    ]
    listed = f"eval.benchmarks=[{','.join(map(_quoted, names))}]"
    return [*overrides, listed, *(name for name in benchmarks if name not in names)]


def _tell_plans(loaded: EvalSettings) -> None:
    from codedance_verl.harness.run import plans

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
