"""Path of data up to training: filter, synthesis and both arms, with a real sandbox and the teacher over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf

from codedance_verl.data.checking import check_file
from codedance_verl.data.schema import Record, read_records
from codedance_verl.filtering.run import filter_records
from codedance_verl.formats import get_format
from codedance_verl.serving.settings import settings_of
from recipes.cpu_demo.demo_sizes import DEFAULT_SIZE, DEMO_KINDS
from recipes.cpu_demo.stages import Layout
from recipes.data_path.arms import write_arms
from recipes.data_path.endpoint import serving
from recipes.data_path.filter import filter_settings
from recipes.data_path.models import weak_model
from recipes.data_path.paths import RL_TRAIN, SFT, Study, layout
from recipes.data_path.pool import main as make_pool
from recipes.data_path.pool import pool_task
from recipes.data_path.synthesize import main as synthesize
from recipes.data_path.teacher import Teacher

pytestmark = pytest.mark.slow

COUNT = 3 * len(DEMO_KINDS)
CODE = get_format("code")
OF_RL = {
    "environment": {"format": "code", "add_system_prompt": False, "max_turns": 3, "max_image_pixels": DEFAULT_SIZE**2},
    "sandbox": {"preload": "light", "cell_timeout_s": 15.0},
    "data": {"max_response_length": 352},
}


def make_demo(out: Path) -> Layout:
    """Folder of a demo, as far as the path reads it but for the weights of its models."""
    demo = Layout(out)
    for path in (demo.tiny, demo.sft_model, demo.rl_model(0)):
        path.mkdir(parents=True)
        (path / "config.json").write_text("{}")
    demo.data.mkdir()
    for name in ("rl_val.parquet", "test.parquet"):
        (demo.data / name).write_text(name)
    OmegaConf.save(OmegaConf.create(OF_RL), demo.rl(0) / "config.yaml")
    return demo


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Pool, strata and demonstrations. The teacher stands in for the weak model too, whose weights a test lacks."""
    folder = tmp_path_factory.mktemp("data_path")
    study = Study(folder / "out", make_demo(folder / "demo"), (0, 1), "process")
    assert make_pool(["--count", str(COUNT), "--out", str(study.pool)]) == 0
    with serving(Teacher((index, pool_task(index)) for index in range(COUNT)).reply) as url:
        settings = filter_settings(study.pool, study.strata, study.demo, 2, study.backend, url)
        models = dict.fromkeys(settings.models, settings.models["strong"])
        asyncio.run(filter_records(replace(settings, models=models), lambda _: None))
    assert synthesize(_arguments(study)) == 0
    return study


def _arguments(study: Study) -> list[str]:
    folders = {"pool": study.pool, "strata": study.strata, "demo": study.demo.out, "out": study.synthesis}
    given = [part for name, folder in folders.items() for part in (f"--{name}", str(folder))]
    return [*given, "--tries", "3", "--sandbox", study.backend]


def _arms(study: Study, seed: int) -> tuple[int, int]:
    return write_arms(study.out, study.pool, study.strata, study.synthesis, study.demo, seed)


def _rows(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


def _stratum(study: Study, *names: str) -> dict[str, Record]:
    paths = [path for name in names if (path := study.strata / f"{name}.parquet").is_file()]
    return {record.record_id: record for path in paths for record in read_records(path).records}


def test_the_pool_has_the_kinds_of_the_demo_in_turn(made: Study) -> None:
    records = read_records(made.pool).records
    assert Counter(record.ability for record in records) == dict.fromkeys(DEMO_KINDS, 3)
    assert records[7].record_id == f"{DEMO_KINDS[1]}-pool-000007"
    assert len({record.images for record in records}) == COUNT


def test_the_weak_model_is_that_of_sft_under_the_settings_of_rl(made: Study) -> None:
    settings = weak_model(made.demo, made.out, [made.pool], "process")
    assert (settings.evaluation.endpoint, settings.evaluation.temperature) == (None, 1.0)
    served = settings_of(settings.evaluation.model, settings.tree, settings.overrides)
    assert served.model == str(made.demo.sft_model.resolve())
    assert (served.environment.max_turns, served.environment.max_image_pixels) == (3, DEFAULT_SIZE**2)
    assert served.serving.response_tokens == 352


def test_the_filter_finds_what_needs_no_tools(made: Study) -> None:
    easy = _stratum(made, "easy")
    assert {name for name in easy if name.startswith(("easy", "look_large"))} == {
        record.record_id for record in read_records(made.pool).records if record.extra_info["difficulty"] == "easy"
    }
    report = json.loads((made.strata / "filter.json").read_text())
    assert sum(report["strata"].values()) == COUNT
    assert report["strata"]["ungraded"] == 0
    assert report["arms"]["strong_tools"]["calls"] > 0


def test_demonstrations_are_right_and_easy_ones_have_no_code(made: Study) -> None:
    truths = {record.record_id: record.ground_truth for record in read_records(made.pool).records}
    rows = _rows(made.synthesis / SFT)
    assert check_file(made.synthesis / SFT).good == len(rows) >= 6
    styles = Counter(row["style"] for row in rows)
    assert styles["direct"] >= 6 and styles["tools"] >= 1
    for row in rows:
        name, turns = row["record_id"].rpartition("/")[2], row["messages"][1::2]
        assert CODE.parse(turns[-1]["content"]).answer == truths[name]
        assert (len(turns) > 1) == (row["style"] == "tools")


def test_the_synthesis_run_again_gives_the_same(made: Study) -> None:
    before = (made.synthesis / SFT).read_bytes()
    assert synthesize(_arguments(made)) == 0
    assert (made.synthesis / SFT).read_bytes() == before


def test_arms_are_of_equal_size(made: Study) -> None:
    sft, rl = _arms(made, 0)
    chosen = _stratum(made, "medium", "hard")
    filtered, unfiltered = (layout(made.out, arm, 0) for arm in ("filtered", "unfiltered"))
    for of in (filtered, unfiltered):
        assert check_file(of.data / SFT).good == sft
        assert check_file(of.data / RL_TRAIN).good == rl == len(chosen)
        assert (of.data / "test.parquet").read_text() == "test.parquet"
        assert (of.tiny / "config.json").is_file()
    trained = {record.record_id: record for record in read_records(filtered.data / RL_TRAIN).records}
    assert trained.keys() == chosen.keys()
    # the demo's own difficulty, by which rewards and tables go, and not the stratum
    assert {record.extra_info["difficulty"] for record in trained.values()} <= {"hard", "easy"}
    random = [record.record_id for record in read_records(unfiltered.data / RL_TRAIN).records]
    assert len(set(random)) == rl and set(random) != trained.keys()
    assert len({row["record_id"] for row in _rows(unfiltered.data / SFT)}) == sft


def test_a_seed_draws_questions_and_order(made: Study) -> None:
    for seed in (0, 1):
        _arms(made, seed)
    first, second = (layout(made.out, "filtered", seed).data / SFT for seed in (0, 1))
    assert _rows(first) != _rows(second)
    assert sorted(map(str, _rows(first))) == sorted(map(str, _rows(second)))
    first, second = (layout(made.out, "unfiltered", seed).data / SFT for seed in (0, 1))
    assert {row["record_id"] for row in _rows(first)} != {row["record_id"] for row in _rows(second)}
    before = first.read_bytes()
    _arms(made, 0)
    assert first.read_bytes() == before
