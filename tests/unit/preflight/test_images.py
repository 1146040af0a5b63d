"""The largest image of the data decides what a sandbox container may use, or is held against what was given."""

from __future__ import annotations

import copy
import functools
import io
from pathlib import Path

import pytest
from omegaconf import DictConfig
from PIL import Image

from codedance_verl.config.compose import compose_config
from codedance_verl.data.checking import check_file
from codedance_verl.preflight.files import check_data
from codedance_verl.preflight.images import SIZED, check_images
from codedance_verl.preflight.report import Report
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.docker.sizing import ImageLoad, sized
from tests.unit.preflight.folders import png, row, write

PHOTO = ImageLoad(2250 * 1500, 2250 * 1500, 900_000, (2250, 1500), row=7)
HUGE = ImageLoad(7680 * 4320, 7680 * 4320, 9_000_000, (7680, 4320), row=3)


@functools.cache
def _composed() -> DictConfig:
    return compose_config("train", ["recipe=cpu_demo", "hardware=cpu", "run_dir=/tmp/run", "sandbox=docker"])


def configured(**values: object) -> DictConfig:
    """The demo's configuration in containers, with these values of `sandbox`."""
    config = copy.deepcopy(_composed())
    config.sandbox.update(values)
    return config


def report_of(config: DictConfig, load: ImageLoad | None) -> Report:
    report = Report(dry=True)
    check_images(config, report, load)
    return report


def test_the_images_of_a_question_are_measured_as_code_gets_them(tmp_path: Path) -> None:
    turned, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (50, 30)).save(turned, "JPEG", exif=exif)
    two = [{"bytes": turned.getvalue(), "path": None}, {"bytes": png(200, 100), "path": None}]
    question = row(1, two, question="<image>Which is larger?")
    checked = check_file(write(tmp_path / "train.parquet", [row(0), question, row(2)]))
    size = len(turned.getvalue()) + len(png(200, 100))
    assert checked.load == ImageLoad(50 * 30 + 200 * 100, 50 * 30, size, (200, 100), row=1)
    portrait = row(0, [{"bytes": turned.getvalue(), "path": None}])
    alone = check_file(write(tmp_path / "one.parquet", [portrait]))
    assert alone.load is not None and alone.load.largest == (30, 50)


def test_a_bad_row_that_is_left_out_sizes_nothing(tmp_path: Path) -> None:
    broken = row(1, [{"bytes": png(900, 900), "path": None}, {"bytes": b"none", "path": None}], "<image>Which?")
    checked = check_file(write(tmp_path / "train.parquet", [row(0), broken]), skip_bad_records=True)
    assert checked.bad_rows == (1,) and checked.load is not None and checked.load.largest == (28, 28)


def test_the_largest_image_of_all_files_counts(tmp_path: Path) -> None:
    train = write(tmp_path / "train.parquet", [row(0), row(1)])
    val = write(tmp_path / "val.parquet", [row(0), row(1, [{"bytes": png(400, 300), "path": None}])])
    config = configured()
    config.data.update(train_files=str(train), val_files=str(val), train_batch_size=2)
    load = check_data(config, Report(dry=True)).load
    assert load is not None and (load.largest, load.row) == ((400, 300), 1)


def test_null_becomes_what_the_images_take_and_the_table_shows_the_prediction() -> None:
    config = configured(sessions_per_container=128)
    assert [config.sandbox[name] for name in SIZED] == [None, None, None]
    report = report_of(config, PHOTO)
    assert not report.findings
    wanted = sized(SandboxConfig(sessions_per_container=128), PHOTO)
    assert SandboxConfig.from_mapping(config.sandbox).scratch_mb == wanted.scratch_mb
    assert config.sandbox.memory_mb >= 9_000 and config.sandbox.session_file_mb == 64
    shown = {fact.name: fact.value for fact in report.facts}
    assert "2250 x 1500" in shown["largest image"] and "row 7" in shown["largest image"]
    assert f"{config.sandbox.memory_mb:,} MiB" in shown["a container"] and "128 sessions" in shown["a container"]
    assert "of this machine" in shown["a node"]


def test_numbers_that_hold_the_images_stay() -> None:
    config = configured(memory_mb=20_000, scratch_mb=5_000)
    assert not report_of(config, PHOTO).findings
    assert (config.sandbox.memory_mb, config.sandbox.scratch_mb) == (20_000, 5_000)


def test_numbers_that_are_too_small_are_told_with_what_would_do() -> None:
    given = {"memory_mb": 4096, "scratch_mb": 512}
    memory, scratch = report_of(configured(sessions_per_container=128, **given), PHOTO).findings
    assert memory.startswith("sandbox.memory_mb=4096: must be at least ") and "128 sessions" in memory
    assert "2250 x 1500" in scratch and "row 7" in scratch and "or null" in scratch
    fits = int(scratch.rpartition(" ")[2])
    assert f"lower sandbox.sessions_per_container to {fits}" in scratch and 40 < fits < 71
    assert not report_of(configured(sessions_per_container=fits, **given), PHOTO).findings


def test_a_file_that_may_not_be_as_large_as_the_image_is_told() -> None:
    (line,) = report_of(configured(backend="process", session_file_mb=64), HUGE).findings
    assert line == "sandbox.session_file_mb=64: must be at least 96, the largest image as a PNG file, or null"
    config = configured(backend="process")
    assert not report_of(config, HUGE).findings and config.sandbox.session_file_mb >= 96


@pytest.mark.parametrize("backend", ["docker", "process"])
def test_a_session_that_may_not_hold_its_images_is_told(backend: str) -> None:
    square = ImageLoad(25_000_000, 25_000_000, 100_000, (5000, 5000), row=4)
    (line,) = report_of(configured(backend=backend, session_memory_mb=64), square).findings
    assert line.startswith("sandbox.session_memory_mb=64: must be at least 191, ") and "5000 x 5000" in line
    assert not report_of(configured(backend=backend, session_memory_mb=191), square).findings


def test_sessions_whose_computed_sizes_may_not_be_set_are_told() -> None:
    (line,) = report_of(configured(sessions_per_container=2048), HUGE).findings
    fits = int(line.removeprefix("sandbox.sessions_per_container=2048: must be at most ").split()[0])
    assert "row 3" in line and 500 < fits < 2048
    assert not report_of(configured(sessions_per_container=fits), HUGE).findings


def test_containers_that_may_use_more_than_the_machine_has_are_shown() -> None:
    config = configured(containers=64, sessions_per_container=128)
    report = report_of(config, HUGE)
    assert not report.findings, "they are limits: not every session holds the largest image"
    (line,) = (fact.value for fact in report.facts if fact.name == "a node")
    assert "lower sandbox.sessions_per_container" in line


@pytest.mark.parametrize("wrong", [{"memory_mb": 10}, {"containers": 0}], ids=str)
def test_nothing_is_said_of_sizes_where_the_sandbox_s_settings_are_wrong(wrong: dict[str, int]) -> None:
    assert report_of(configured(**wrong), PHOTO).findings == []


def test_without_a_known_image_null_stays() -> None:
    config = configured()
    assert report_of(config, None).facts == [] and config.sandbox.memory_mb is None
