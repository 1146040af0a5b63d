"""Questions that the path begins with: `python -m recipes.data_path.pool --count 1500 --out pool.parquet`.

They are of the demo's kinds, and none of them is one of the demo's own.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from codedance_verl.data.schema import write_records
from codedance_verl.errors import UserError
from recipes.cpu_demo.demo_set import make_record
from recipes.cpu_demo.demo_sizes import DEMO_KINDS
from recipes.cpu_demo.tasks import generate_task
from recipes.cpu_demo.tasks.base import Split, Task

SPLIT = "pool"
"""Split that the records state, and a part of their names."""

_SEED = 0
_OFFSET = 2_000_000
"""First task index. The demo has its demonstrations from 0 and its questions for RL from 1,000,000."""


def pool_task(index: int) -> Task:
    """Task `index` of the pool, from 0; kinds come in turn. The same index always gives the same task."""
    return generate_task(DEMO_KINDS[index % len(DEMO_KINDS)], _SEED, Split.TRAIN, _OFFSET + index)


def write_pool(path: Path, count: int) -> None:
    """Writes the first `count` tasks as RL records, in order. Raises UserError: the disk does not take them."""
    write_records(path, (make_record(pool_task(index), SPLIT, index) for index in range(count)))


def main(arguments: list[str] | None = None) -> int:
    """Command-line entry; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m recipes.data_path.pool", description="Writes the questions.")
    parser.add_argument("--count", type=int, required=True, help="questions")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    options = parser.parse_args(arguments)
    try:
        write_pool(options.out, options.count)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
