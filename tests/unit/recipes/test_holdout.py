"""Hold-out study: what is left out, the stages, and the table."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from codedance_verl.operations.catalogue import Category
from codedance_verl.operations.rates import rate
from recipes.cpu_demo.stages import Layout
from recipes.holdout.demonstrations import FILES, leave_out
from recipes.holdout.run import stages
from recipes.holdout.table import Row, markdown


def demonstration(kind: str, code: str) -> dict[str, object]:
    call = f"<think>Look.</think>\n<code>\n```python\n{code}\n```\n</code>" if code else "<answer>2</answer>"
    messages = [{"role": "user", "content": "<image>\nHow many?"}, {"role": "assistant", "content": call}]
    return {"messages": messages, "kind": kind, "images": [{"bytes": b"x"}]}


def test_demonstrations_with_the_category_are_left_out_whole(tmp_path: Path) -> None:
    demo = tmp_path / "demo"
    demo.mkdir()
    for name in FILES:
        (demo / name).write_bytes(b"as it is")
    rows = [
        demonstration("look", "input_image.crop((0, 0, 10, 10))"),
        demonstration("look", "input_image.resize((50, 50))"),
        demonstration("easy", ""),
    ]
    pq.write_table(pa.Table.from_pylist(rows), demo / "sft.parquet")
    counts = leave_out(demo, tmp_path / "out", Category.CROP)
    assert counts == {"easy": (1, 0), "look": (1, 1)}
    kept = pq.read_table(tmp_path / "out" / "sft.parquet").to_pylist()
    assert kept == rows[1:]
    assert all((tmp_path / "out" / name).read_bytes() == b"as it is" for name in FILES)


def test_all_but_the_demonstrations_is_done_as_in_the_demo(tmp_path: Path) -> None:
    found = stages(Layout(tmp_path / "demo"), tmp_path / "out", Category.CROP, (0, 1), "docker")
    assert [stage.name for stage in found] == ["demonstrations", "sft", "eval_sft", "rl_seed0", "rl_seed1", "table"]
    assert f"data.train_files={tmp_path / 'out' / 'data' / 'sft.parquet'}" in found[1].command


def test_the_table_has_a_row_for_each_place() -> None:
    rows = [
        Row("all but it", None, "evaluation of SFT", rate(0, 384), None, rate(2, 384)),
        Row("all but it", 0, "steps 1-5", rate(3, 1000), 2 / 3, rate(5, 1000)),
    ]
    assert markdown(Category.CROP, rows).splitlines()[2:] == [
        "| all but it |  | evaluation of SFT | 0.0 (0.0 to 9.9) |  | 5.2 (1.4 to 18.8) |",
        "| all but it | 0 | steps 1-5 | 3.0 (1.0 to 8.8) | 66.7 % | 5.0 (2.1 to 11.7) |",
    ]
