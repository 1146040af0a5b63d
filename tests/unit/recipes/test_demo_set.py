from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from codedance_verl.data.checking import check_file
from codedance_verl.data.conditions import CONTROL_OF_VARIANT, Condition, Control
from codedance_verl.data.schema import read_records
from codedance_verl.datasets.cli import data_app
from codedance_verl.errors import UserError
from recipes.cpu_demo.demo_set import (
    DEMO_KINDS,
    DemoFiles,
    DemoSizes,
    make_demo_data,
    weighted_turns,
)
from recipes.cpu_demo.tasks.base import COLOURS

SIZES = DemoSizes(sft=24, rl_train=18, rl_val=8, test=12, blank=4, controls=5)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> DemoFiles:
    return make_demo_data(tmp_path_factory.mktemp("demo"), seed=1, sizes=SIZES)


def test_every_file_is_valid_and_of_the_size_asked_for(files: DemoFiles) -> None:
    counts = [check_file(path).good for path in (files.sft, files.rl_train, files.rl_val, files.test)]
    assert counts == [24, 18, 8, 12 * 2 + 4 + 5 * 2 + 2]
    assert files.styles.total() == 24


def test_the_same_seed_gives_the_same_bytes(files: DemoFiles, tmp_path: Path) -> None:
    again = make_demo_data(tmp_path, seed=1, sizes=SIZES)
    other = make_demo_data(tmp_path / "other", seed=2, sizes=SIZES)
    for name in ("sft", "rl_train", "rl_val", "test"):
        assert getattr(files, name).read_bytes() == getattr(again, name).read_bytes()
        assert getattr(files, name).read_bytes() != getattr(other, name).read_bytes()


def test_test_questions_are_distinct_and_stand_once_per_variant(files: DemoFiles) -> None:
    records = read_records(files.test).records
    variants = Counter(record.extra_info["variant"] for record in records)
    assert variants == {"sampled": 12, "greedy": 12, "blank": 4, "grey": 2, "no_tools": 5, "forced_tools": 5}
    by_variant = {
        variant: {record.record_id: record for record in records if record.extra_info["variant"] == variant}
        for variant in variants
    }
    assert by_variant["sampled"].keys() == by_variant["greedy"].keys() > by_variant["blank"].keys()
    assert len({record.images for record in by_variant["sampled"].values()}) == 12
    for record_id, blank in by_variant["blank"].items():
        original = by_variant["sampled"][record_id]
        assert (blank.question, blank.ground_truth) == (original.question, original.ground_truth)
        grey = np.asarray(blank.load_images()[0])
        assert grey.min() == grey.max() == 128
        assert grey.shape == np.asarray(original.load_images()[0]).shape


def test_controls_are_greedy_and_change_nothing_in_the_question(files: DemoFiles) -> None:
    records = read_records(files.test).records
    greedy = {record.record_id: record for record in records if record.extra_info["variant"] == "greedy"}
    for variant, control in CONTROL_OF_VARIANT.items():
        chosen = [record for record in records if record.extra_info["variant"] == variant]
        returned = [name for name, record in greedy.items() if record.ability == "look"]
        assert [record.record_id for record in chosen] == (returned if variant == "grey" else list(greedy)[:5])
        for record in chosen:
            original = greedy[record.record_id]
            assert Condition.of(record.extra_info) == Condition(variant, control, 0.0)
            assert (record.prompt, record.images, record.ground_truth) == (
                original.prompt,
                original.images,
                original.ground_truth,
            )
    assert sorted(CONTROL_OF_VARIANT.values()) == sorted(Control)
    for path in (files.rl_train, files.rl_val):
        assert check_file(path).for_evaluation is None
    assert check_file(files.test).for_evaluation is not None


def test_kinds_come_in_equal_shares_with_their_difficulty(files: DemoFiles) -> None:
    records = read_records(files.rl_train).records
    assert Counter(record.extra_info["kind"] for record in records) == dict.fromkeys(DEMO_KINDS, 3)
    assert {r.extra_info["difficulty"] for r in records if r.ability in ("easy", "look_large")} == {"easy"}
    assert all(record.prompt[0].content.startswith("<image>") for record in records)
    assert all(record.extra_info["variant"] is None for record in records)


def test_answers_that_only_a_returned_image_shows_come_equally_often(tmp_path: Path) -> None:
    sizes = DemoSizes(sft=1, rl_train=1, rl_val=1, test=12, blank=0, controls=0)
    records = read_records(make_demo_data(tmp_path, sizes=sizes, kinds=("look",)).test).records
    assert Counter(record.ground_truth for record in records) == dict.fromkeys(COLOURS, 2 * 2)  # sampled and greedy


def test_kinds_are_demonstrated_as_often_as_the_mixture_says(files: DemoFiles) -> None:
    kinds = ("often", "seldom")
    assert Counter(weighted_turns(kinds, (8.0, 1.0), 90)) == {"often": 80, "seldom": 10}
    assert Counter(weighted_turns(kinds, (8.0, 1.0), 45)) == {"often": 40, "seldom": 5}  # at any point of the list
    demonstrated = Counter(pq.read_table(files.sft)["kind"].to_pylist())
    assert demonstrated["look"] > demonstrated["easy"] > demonstrated.get("count_digits", 0)


def test_no_image_is_in_two_files(files: DemoFiles) -> None:
    demonstrated = {row["bytes"] for images in pq.read_table(files.sft)["images"].to_pylist() for row in images}
    pictures = [demonstrated]
    pictures += [{r.images[0] for r in read_records(path).records} for path in (files.rl_train, files.rl_val)]
    pictures.append({r.images[0] for r in read_records(files.test).records if r.extra_info["variant"] != "blank"})
    assert len(set.union(*pictures)) == sum(len(some) for some in pictures)


def test_the_command_makes_and_checks_files(tmp_path: Path) -> None:
    sizes = ["--sft", "4", "--rl-train", "4", "--rl-val", "2", "--test", "2", "--blank", "1", "--controls", "1"]
    made = CliRunner().invoke(data_app, ["make", "--out", str(tmp_path), "--seed", "4", "--kind", "easy", *sizes])
    assert made.exit_code == 0, made.output
    checked = CliRunner().invoke(data_app, ["check", str(tmp_path / "test.parquet"), str(tmp_path / "sft.parquet")])
    assert "test.parquet: 7 good records, 0 bad" in checked.output
    assert "sft.parquet: 4 good records, 0 bad" in checked.output
    missing = CliRunner().invoke(data_app, ["check", str(tmp_path / "none.parquet")])
    assert isinstance(missing.exception, UserError)
