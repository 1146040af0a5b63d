"""Questions of the comparison: the demo's test file without its controls, greedy and sampled rows alone.

Blank images and interventions would double the time of every evaluation, and no column of the table shows them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pyarrow.parquet as pq

from codedance_verl.data.conditions import GREEDY, SAMPLED


def main(arguments: list[str] | None = None) -> int:
    """Command-line entry; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m recipes.ablation.questions")
    parser.add_argument("--test", type=Path, required=True, help="test file of the demo")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    options = parser.parse_args(arguments)
    table = pq.read_table(options.test)
    variants = [extra["variant"] for extra in table.select(["extra_info"]).column(0).to_pylist()]
    kept = [variant in (GREEDY, SAMPLED) for variant in variants]
    pq.write_table(table.filter(kept), options.out)
    print(f"{sum(kept)} of {len(kept)} rows", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
