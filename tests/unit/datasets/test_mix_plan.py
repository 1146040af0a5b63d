"""Plan of a mixture: its order, and the memory that it takes for each record."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from codedance_verl.datasets.mix import Share, plan_mixture

STRATA = ("easy", "medium", "hard")


def _file(path: Path, rows: int) -> Path:
    column = pa.array([STRATA[index % 3] for index in range(rows)])
    pq.write_table(pa.table({"difficulty": column}), path, row_group_size=2_000)
    return path


def test_a_plan_has_every_place_once_in_the_order_of_files_and_rows(tmp_path: Path) -> None:
    files = [_file(tmp_path / "a.parquet", 30), _file(tmp_path / "b.parquet", 60)]
    plan = plan_mixture([Share(files[0], 2), Share(files[1], 1)], 120, STRATA, 3)
    assert plan.dtype == np.int64 and sorted(plan[2].tolist()) == list(range(120))
    assert np.bincount(plan[0]).tolist() == [80, 40]
    keys = [tuple(column) for column in plan.T.tolist()]
    assert keys == sorted(keys)
    # of the file that is given more than twice each row comes two or three times, of the other once or not at all
    assert set(np.bincount(plan[1][plan[0] == 0]).tolist()) == {2, 3}
    assert set(np.bincount(plan[1][plan[0] == 1]).tolist()) <= {0, 1}
    by_place = plan[:, np.argsort(plan[2])]
    strata = (by_place[1] % 3).tolist()
    assert strata == sorted(strata)
    assert by_place[0].tolist() != sorted(by_place[0].tolist())


def test_a_plan_takes_few_bytes_a_record(tmp_path: Path) -> None:
    rows = 40_000
    share = Share(_file(tmp_path / "a.parquet", rows))
    plan_mixture([share], 1, STRATA, 0)
    tracemalloc.start()
    try:
        plan_mixture([share], None, STRATA, 0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 80 * rows
