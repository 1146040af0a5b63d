"""Criteria of the demo seed by seed: `python -m recipes.cpu_demo.by_seed --out outputs/demo --seeds 0,1,2,3,4,5`.

Prints a Markdown table. Each column is what the report would say of that seed alone; criteria on the whole run, such as
its wall time, are left out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from codedance_verl.errors import UserError
from codedance_verl.evaluation.build import build_report
from codedance_verl.evaluation.report import Criterion
from recipes.cpu_demo.environment import read_environment
from recipes.cpu_demo.report import report_inputs
from recipes.cpu_demo.stages import parse_seeds

OF_THE_RUN = ("questions", "seeds", "completeness", "wall_time")
"""Criteria that say nothing of a seed."""


def table(by_seed: Mapping[int, Mapping[str, Criterion]]) -> str:
    """Returns the table: a row a criterion, a column a seed; what is not met is bold.

    The last row says how many criteria a seed meets.
    """
    names = [name for name in next(iter(by_seed.values())) if name not in OF_THE_RUN]
    rows = [["criterion", *(f"seed {seed}" for seed in by_seed)], ["---", *("---:" for _ in by_seed)]]
    rows += [[f"`{name}`", *(_cell(criteria[name]) for criteria in by_seed.values())] for name in names]
    met = (sum(criteria[name].passed for name in names) for criteria in by_seed.values())
    rows.append(["met", *(f"{count} of {len(names)}" for count in met)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(criterion: Criterion) -> str:
    text = "n/a" if criterion.value is None else f"{criterion.value:.2f}"
    return text if criterion.passed else f"**{text}**"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the demo")
    parser.add_argument("--seeds", required=True, help="RL seeds that have ended, separated by commas")
    options = parser.parse_args(arguments)
    try:
        out, seeds = options.out.resolve(), parse_seeds(options.seeds)
        environment = read_environment(out)
        print(table({seed: build_report(report_inputs(out, [seed], environment, 0.0)).passed for seed in seeds}))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
