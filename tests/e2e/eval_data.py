"""Files of all eleven benchmarks in small, in one folder, as `codedance eval --data` takes it."""

from __future__ import annotations

from pathlib import Path

from tests.unit.tasks import (
    test_chartqa,
    test_charxiv,
    test_counting,
    test_hrbench,
    test_mathverse,
    test_mathvision,
    test_mathvista,
    test_vstar,
    test_wemath,
)

BENCHMARKS = (
    "countbench",
    "pixmocount",
    "vstar",
    "hrbench_4k",
    "hrbench_8k",
    "chartqa",
    "charxiv",
    "mathvision",
    "mathvista",
    "mathverse",
    "wemath",
)


def make_benchmarks(folder: Path) -> Path:
    """Folder with a folder of files for each benchmark: 3 to 12 items, each with an image of its own size."""
    for name in BENCHMARKS:
        (folder / name).mkdir(parents=True)
    test_counting._countbench(folder / "countbench", "parquet")
    test_counting._pixmo(folder / "pixmocount", {f"{number}.png": number for number in range(4)})
    for name in ("direct_attributes", "relative_position"):
        (folder / "vstar" / name).mkdir()
    test_vstar._make(folder / "vstar", "jsonl")
    rows = test_hrbench._rows(False)
    test_hrbench._make(folder / "hrbench_4k", "tsv", rows)
    test_hrbench._make(folder / "hrbench_8k", "tsv", rows)
    (folder / "hrbench_8k" / "hr_bench_4k.tsv").rename(folder / "hrbench_8k" / "hr_bench_8k.tsv")
    test_chartqa._make(folder / "chartqa", "ahmed-masry")
    test_charxiv._parquet(folder / "charxiv")
    test_mathvision._make(folder / "mathvision", "parquet")
    test_mathvista._make(folder / "mathvista", "parquet")
    test_mathverse._make(folder / "mathverse", "parquet")
    test_wemath._make(folder / "wemath", "parquet")
    return folder
