"""Data of both arms with a seed: `python -m recipes.data_path.arms`.

Filtered: the demonstrations of the synthesis, and RL on the medium and hard questions. Unfiltered: as many questions of
the pool at random for each, demonstrated by the same teacher at the first try, unchecked. Questions of validation and
test, and the model that SFT begins with, are the demo's.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from codedance_verl.data.parquet import write_rows
from codedance_verl.data.schema import SFT_SCHEMA, Record, read_records, write_records
from codedance_verl.errors import UserError
from codedance_verl.filtering.output import file_of
from recipes.cpu_demo.stages import Layout
from recipes.data_path.paths import ARMS, OF_THE_DEMO, RL_TRAIN, SFT, WITH_TOOLS, layout
from recipes.data_path.pool import pool_task
from recipes.data_path.synthesize import demonstrations
from recipes.data_path.teacher import first_try


def write_arms(out: Path, pool: Path, strata: Path, synthesis: Path, demo: Layout, seed: int) -> tuple[int, int]:
    """Writes data and first model of both arms; returns the numbers of demonstrations and of questions for RL.

    The seed draws the unfiltered questions, and the order of the demonstrations.

    Raises UserError: a file cannot be read or written, or there is no question for RL.
    """
    records = read_records(pool).records
    wanted = _names(strata)
    chosen = [record for record in records if record.record_id in wanted]
    if not chosen:
        raise UserError(f"{strata}: no question of the pool is medium or hard; there is nothing to train on")
    kept = list(demonstrations(synthesis / SFT))
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(kept))
    for_sft, for_rl = _drawn(rng, len(records), len(kept)), _drawn(rng, len(records), len(chosen))
    for arm in ARMS:
        _take(demo, layout(out, arm, seed))
    filtered, unfiltered = (layout(out, arm, seed).data for arm in ARMS)
    write_rows(filtered / SFT, (kept[index] for index in order), SFT_SCHEMA)
    write_records(filtered / RL_TRAIN, chosen)
    write_rows(unfiltered / SFT, (_unchecked(index, records[index], seed) for index in for_sft), SFT_SCHEMA)
    write_records(unfiltered / RL_TRAIN, [records[index] for index in sorted(for_rl)])
    return len(kept), len(chosen)


def _names(strata: Path) -> set[str]:
    """Names of the questions that RL gets; those of the pool itself have the demo's own difficulty."""
    files = [path for stratum in WITH_TOOLS if (path := file_of(strata, stratum)).is_file()]
    return {record.record_id for path in files for record in read_records(path).records}


def _drawn(rng: np.random.Generator, total: int, count: int) -> list[int]:
    return [int(index) for index in rng.choice(total, size=count, replace=False)]


def _unchecked(index: int, record: Record, seed: int) -> Mapping[str, Any]:
    task = pool_task(index)
    return first_try(index, task, seed).as_row(record.record_id, task)


def _take(demo: Layout, arm: Layout) -> None:
    arm.data.mkdir(parents=True, exist_ok=True)
    for name in OF_THE_DEMO:
        shutil.copyfile(demo.data / name, arm.data / name)
    shutil.copytree(demo.tiny, arm.tiny, dirs_exist_ok=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command-line entry; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m recipes.data_path.arms", description="Writes data of both arms.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the path")
    for name in ("pool", "strata", "synthesis", "demo"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args(arguments)
    try:
        demo = Layout(options.demo)
        sft, rl = write_arms(options.out, options.pool, options.strata, options.synthesis, demo, options.seed)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"each arm: {sft:,} demonstrations, {rl:,} questions for RL")
    return 0


if __name__ == "__main__":
    sys.exit(main())
