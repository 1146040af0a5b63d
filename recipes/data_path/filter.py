"""Strata of the pool: `python -m recipes.data_path.filter`. Weak is the demo's model after SFT, strong the teacher."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from codedance_verl.data.parquet import open_parquet
from codedance_verl.errors import UserError
from codedance_verl.filtering.rule import Arm, Rule
from codedance_verl.filtering.run import FilterSettings, filter_records
from codedance_verl.filtering.strata import lines_of
from codedance_verl.serving.cli import end_by_signals
from recipes.cpu_demo.environment import BACKENDS
from recipes.cpu_demo.stages import Layout
from recipes.data_path.endpoint import started
from recipes.data_path.models import teacher, tell, weak_model


def filter_settings(pool: Path, out: Path, demo: Layout, samples: int, backend: str, url: str) -> FilterSettings:
    """Settings of the filter.

    Args:
        pool: file of questions.
        out: folder of the strata.
        demo: a finished one.
        samples: of each question by each model, with tools and without, at most.
        backend: where code runs, "docker" or "process".
        url: of the teacher.
    """
    models = {
        "weak": weak_model(demo, out, [pool], backend),
        "strong": teacher(demo, out, [pool], backend, url),
    }
    return FilterSettings((pool,), out, models, Rule(dict.fromkeys(Arm, samples)))


def main(arguments: list[str] | None = None) -> int:
    """Command-line entry; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m recipes.data_path.filter", description="Divides the pool.")
    parser.add_argument("--pool", type=Path, required=True, help="file of questions")
    parser.add_argument("--demo", type=Path, required=True, help="folder of a finished demo")
    parser.add_argument("--out", type=Path, required=True, help="folder of the strata; run again, it goes on")
    parser.add_argument("--samples", type=int, required=True, help="of each question, model and way, at most")
    parser.add_argument("--sandbox", choices=BACKENDS, default="auto")
    options = parser.parse_args(arguments)
    end_by_signals()
    try:
        with started(open_parquet(options.pool).metadata.num_rows) as url:
            settings = filter_settings(
                options.pool, options.out, Layout(options.demo), options.samples, options.sandbox, url
            )
            report = asyncio.run(filter_records(settings, tell))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(lines_of(report)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
