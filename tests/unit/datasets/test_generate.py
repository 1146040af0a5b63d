"""Generated record files: layout, order, determinism, resumption, and the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from codedance_verl.data.checking import check_file
from codedance_verl.data.schema import read_records
from codedance_verl.datasets import generate as generate_module
from codedance_verl.datasets.cli import data_app
from codedance_verl.datasets.commands import Options, mix
from codedance_verl.datasets.generate import GenerateJob, Order, generate
from codedance_verl.datasets.mix import Share
from codedance_verl.errors import UserError
from codedance_verl.generators.choices import Split
from codedance_verl.generators.kinds import KINDS, draw_item

ALL = tuple(KINDS)


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate_module, "PIECE_ROWS", 4)


def _rows(path: Path) -> list[dict[str, Any]]:
    return list(pq.read_table(path).to_pylist())


def test_records_are_those_that_training_reads(tmp_path: Path) -> None:
    out = tmp_path / "made.parquet"
    tally = generate(Order(ALL, (1, 4), records=20, seed=3), out, None, 1)
    assert tally.made["all"] == 20 and not list(tmp_path.glob("*.parts-*"))
    assert not check_file(out, False).lines
    for number, record in enumerate(read_records(out).records):
        kind, level = ALL[number % 5], (1, 4)[number // 5 % 2]
        item = draw_item(kind, KINDS[kind].settings(level, {}), 3, Split.TRAIN, number)
        assert [image.tobytes() for image in record.load_images()] == [image.tobytes() for image in item.images]
        assert (record.question, record.ground_truth) == (item.question, item.answer)
        assert record.prompt[0].content.count("<image>") == len(item.images)
        extra = record.extra_info
        assert (extra["kind"], extra["difficulty"], extra["index"]) == (kind, {1: "easy", 4: "hard"}[level], number)
        facts = json.loads(extra["other"])
        assert (facts["level"], facts["needs_code"]) == (level, item.needs_code)
        assert facts["dials"] == KINDS[kind].settings(level, {})
        assert [(box["image"], box["label"]) for box in facts["evidence"]] == [
            (region.image, region.label) for region in item.regions
        ]
        # boxes are in pixels of the image that code has as `input_image`
        assert [tuple(box[key] for key in ("x1", "y1", "x2", "y2")) for box in extra["regions"]] == [
            tuple(region.box) for region in item.regions if len(item.images) == 1
        ]


def test_the_same_order_gives_the_same_bytes_whatever_the_processes(tmp_path: Path) -> None:
    order = Order(("spatial", "table"), (2,), records=18, seed=1)
    for folder, workers in (("one", 1), ("two", 2)):
        generate(order, tmp_path / folder / "made.parquet", None, workers)
    assert _rows(tmp_path / "one/made.parquet") == _rows(tmp_path / "two/made.parquet")
    images = [sorted(path.name for path in (tmp_path / folder / "images").rglob("*.png")) for folder in ("one", "two")]
    assert images[0] == images[1] and len(images[0]) == 18


def test_names_of_records_differ_between_seeds_splits_and_dials(tmp_path: Path) -> None:
    orders = [
        Order(("table",), records=3),
        Order(("table",), records=3, seed=1),
        Order(("table",), records=3, split="val"),
        Order(("table",), records=3, dials=("rows=9",)),
    ]
    names = set[str]()
    for number, order in enumerate(orders):
        generate(order, tmp_path / f"{number}.parquet", None, 1)
        names |= {row["extra_info"]["record_id"] for row in _rows(tmp_path / f"{number}.parquet")}
    assert len(names) == 12


def test_an_ended_run_goes_on_behind_the_last_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order, out = Order(("spatial",), records=12), tmp_path / "made.parquet"
    drawn = list[int]()

    def counted(kind: str, dials: Any, seed: int, split: Any, index: int, view: int) -> Any:
        if len(drawn) == 6:
            drawn.append(-1)
            raise KeyboardInterrupt
        drawn.append(index)
        return draw_item(kind, dials, seed, split, index, view)

    monkeypatch.setattr(generate_module, "draw_item", counted)
    with pytest.raises(KeyboardInterrupt):
        generate(order, out, None, 1)
    assert not out.exists()
    generate(order, out, None, 1)
    # the first piece of four was whole; the second begins again
    assert drawn == [*range(6), -1, *range(4, 12)]
    assert [row["extra_info"]["index"] for row in _rows(out)] == list(range(12))


def test_facts_survive_a_mixture(tmp_path: Path) -> None:
    made, mixed = tmp_path / "made.parquet", tmp_path / "mixed.parquet"
    generate(Order(("geometry",), (1, 3, 5), records=9), made, None, 1)
    mix([Share(made)], Options(mixed), None, ["easy", "medium", "hard"], 0)
    rows = _rows(mixed)
    assert [row["extra_info"]["difficulty"] for row in rows] == ["easy"] * 3 + ["medium"] * 3 + ["hard"] * 3
    for row in rows:
        assert {"level", "dials", "needs_code", "measures", "evidence"} == set(json.loads(row["extra_info"]["other"]))
        assert row["extra_info"]["regions"] and row["extra_info"]["points"]
    assert not check_file(mixed, False).lines


def test_another_version_of_the_generators_starts_over() -> None:
    one, other = (GenerateJob(Order(("table",)), Path("/a"), Path("/b"), code) for code in ("x", "y"))
    assert repr(one) != repr(other)  # the key of a run's parts


def test_the_command_makes_a_file(tmp_path: Path) -> None:
    out = tmp_path / "made.parquet"
    arguments = "generate table geometry --level 1 --level 5 --records 8 --split test --dial candidates=4 --workers 1"
    done = CliRunner().invoke(data_app, [*arguments.split(), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "8 records, 0 bad rows left out" in done.output
    rows = _rows(out)
    assert [row["extra_info"]["split"] for row in rows] == ["test"] * 8
    assert {len([p for p in row["extra_info"]["points"] if p["label"].isdigit()]) for row in rows[1::2]} == {4}


def test_the_view_of_the_model_decides_which_records_need_code(tmp_path: Path) -> None:
    needed = []
    for view in (1_003_520, 112 * 112):
        out = tmp_path / f"{view}.parquet"
        generate(Order(("table",), (2,), ("columns=8",), records=6, view_pixels=view), out, None, 1)
        needed.append([json.loads(row["extra_info"]["other"])["needs_code"] for row in _rows(out)])
    assert needed == [[False] * 6, [True] * 6]


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (Order(("tables",)), "no kind tables; choose from"),
        (Order(("table",), (7,)), "--level is 7; choose 1 to 5"),
        (Order(("table",), dials=("rows=99",)), "--dial rows=99 is out of range"),
        (Order(("table",), split="dev"), "--split is dev; choose from train, val, test"),
    ],
)
def test_what_cannot_be_made_is_refused_before_anything_is_written(tmp_path: Path, order: Order, message: str) -> None:
    with pytest.raises(UserError, match=message):
        generate(order, tmp_path / "deep" / "made.parquet", None, 1)
    assert not list(tmp_path.iterdir())
