"""Demonstrations without a category of operations: `python -m recipes.holdout.demonstrations`.

A demonstration whose code has the category, live or dead, is left out whole; all others stay as they are. Questions for
RL and for the test are those of the demo.
"""

from __future__ import annotations

import argparse
import shutil
from collections import Counter
from pathlib import Path

import pyarrow as pa

from codedance_verl.data.parquet import GroupWriter, batches, open_parquet
from codedance_verl.evaluation.operations import analysed_demonstration
from codedance_verl.operations.catalogue import Category

FILES = ("rl_train.parquet", "rl_val.parquet", "test.parquet")
"""Files of the demo that are taken as they are."""


def leave_out(demo: Path, out: Path, category: Category) -> dict[str, tuple[int, int]]:
    """Writes the data of the study into `out`.

    Args:
        demo: folder `data` of a finished demo.

    Returns:
        Demonstrations that were kept and that were left out, by kind.

    Raises:
        UserError: a file cannot be read or written.
    """
    out.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copyfile(demo / name, out / name)
    source = demo / "sft.parquet"
    file = open_parquet(source)
    counts: Counter[tuple[str, bool]] = Counter()
    with GroupWriter(out / "sft.parquet", file.schema_arrow) as writer:
        for batch in batches(source, file, tuple(file.schema_arrow.names)):
            rows = batch.select(["messages", "kind"]).to_pylist()
            keep = [category not in analysed_demonstration(row["messages"]).categories for row in rows]
            counts.update((row["kind"], kept) for row, kept in zip(rows, keep, strict=True))
            writer.add(pa.Table.from_batches([batch.filter(pa.array(keep))]))
    kinds = sorted({kind for kind, _ in counts})
    return {kind: (counts[kind, True], counts[kind, False]) for kind in kinds}


def main() -> None:
    parser = argparse.ArgumentParser(description="Leaves a category of operations out of the demo's demonstrations.")
    parser.add_argument("--data", type=Path, required=True, help="folder `data` of a finished demo")
    parser.add_argument("--category", type=Category, choices=list(Category), required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    options = parser.parse_args()
    for kind, (kept, left) in leave_out(options.data, options.out, options.category).items():
        print(f"{kind}: {kept:,} demonstrations, {left:,} left out")


if __name__ == "__main__":
    main()
