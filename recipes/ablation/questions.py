"""The questions of the comparison: the demo's test file without what is not sampled at temperature 1.

Greedy answers and blank images would double the time of every evaluation, and no column of the table shows them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pyarrow.parquet as pq

from codedance_verl.data.conditions import SAMPLED


def main(arguments: list[str] | None = None) -> int:
    """Command-line entry; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m recipes.ablation.questions")
    parser.add_argument("--test", type=Path, required=True, help="test file of the demo")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    options = parser.parse_args(arguments)
    table = pq.read_table(options.test)
    sampled = [extra["variant"] == SAMPLED for extra in table.column("extra_info").to_pylist()]
    pq.write_table(table.filter(sampled), options.out)
    print(f"{sum(sampled)} of {len(sampled)} rows", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
