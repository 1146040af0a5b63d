"""Each mistake a user can make before a run starts ends with one line that names the cause and the cure."""

from __future__ import annotations

import io
from collections import namedtuple
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import DictConfig
from PIL import Image

from codedance_verl.config import compose_config
from codedance_verl.errors import UserError
from codedance_verl.preflight import check, check_output_folder

Usage = namedtuple("Usage", "total used free")


def _png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (28, 28), "red").save(buffer, "PNG")
    return buffer.getvalue()


def _row(index: int, images: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return {
        "data_source": "test/easy",
        "prompt": [{"role": "user", "content": "<image>Which colour?"}],
        "images": [{"bytes": _png(), "path": None}] if images is None else images,
        "ability": "easy",
        "reward_model": {"style": "rule", "ground_truth": "red"},
        "extra_info": {"split": "train", "index": index},
    }


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def _config(folder: Path, train: Path, *overrides: str) -> DictConfig:
    model = folder / "model"
    model.mkdir(exist_ok=True)
    (model / "config.json").write_text("{}")
    return compose_config(
        "train",
        [
            "hardware=cpu",
            "recipe=cpu_demo",
            "sandbox.backend=process",
            f"run_dir={folder / 'run'}",
            f"data.train_files={train}",
            f"data.val_files={train}",
            f"actor_rollout_ref.model.path={model}",
            *overrides,
        ],
    )


def test_good_records_pass(tmp_path: Path) -> None:
    check(_config(tmp_path, _write(tmp_path / "train.parquet", [_row(0), _row(1)])))


@pytest.mark.parametrize(
    ("images", "cause"),
    [
        ([], "no image"),
        ([{"bytes": b"\x89PNG\r\n\x1a\n broken", "path": None}], "image"),
        ([{"bytes": None, "path": "gone.png"}], r"gone\.png"),
    ],
    ids=["no image", "broken PNG", "missing file"],
)
def test_a_bad_record_names_file_row_and_cure(images: list[dict[str, Any]], cause: str, tmp_path: Path) -> None:
    train = _write(tmp_path / "train.parquet", [_row(0), _row(1, images)])
    with pytest.raises(UserError, match=rf"train\.parquet row 1: .*{cause}.*skip_bad_records=true"):
        check(_config(tmp_path, train))


def test_bad_records_are_left_out_and_named_only_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = _write(tmp_path / "train.parquet", [_row(0), _row(1, []), _row(2)])
    config = _config(tmp_path, train, "skip_bad_records=true")
    check(config)
    assert "skipped: train.parquet row 1" in capsys.readouterr().out
    (used,) = config.data.train_files
    assert [row["extra_info"]["index"] for row in pq.read_table(used).to_pylist()] == [0, 2]


def test_a_missing_data_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no data file at .*codedance data make"):
        check(_config(tmp_path, tmp_path / "train.parquet"))


def test_a_model_folder_without_a_model_is_named(tmp_path: Path) -> None:
    train = _write(tmp_path / "train.parquet", [_row(0)])
    with pytest.raises(UserError, match=r"actor_rollout_ref\.model\.path=.*no config\.json there"):
        check(_config(tmp_path, train, f"actor_rollout_ref.model.path={tmp_path}/nothing"))


def test_a_batch_that_mini_batches_do_not_divide_is_named(tmp_path: Path) -> None:
    train = _write(tmp_path / "train.parquet", [_row(0)])
    with pytest.raises(UserError, match=r"data\.train_batch_size=33: must be a multiple of .*ppo_mini_batch_size=16"):
        check(_config(tmp_path, train, "data.train_batch_size=33"))


def test_no_engine_where_docker_was_asked_for_names_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    train = _write(tmp_path / "train.parquet", [_row(0)])
    with pytest.raises(UserError, match=r"no Docker engine answers at DOCKER_HOST=.*start it or unset it"):
        check(_config(tmp_path, train, "sandbox.backend=docker"))


def test_a_full_disk_is_named_with_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codedance_verl.preflight.shutil.disk_usage", lambda _: Usage(100, 97, 3 << 20))
    with pytest.raises(UserError, match=r"3 MiB free, at least 1024 MiB are needed .*free some space"):
        check_output_folder(tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/run: cannot be written \(Not a directory\)"):
        check_output_folder(tmp_path / "file" / "run")


def _open_row(style: str) -> dict[str, Any]:
    return {**_row(0), "reward_model": {"style": style, "ground_truth": "riding a bicycle"}}


def test_a_record_that_needs_a_judge_where_there_is_none_is_named(tmp_path: Path) -> None:
    train = _write(tmp_path / "train.parquet", [_row(0), _open_row("model")])
    with pytest.raises(UserError, match=r"train\.parquet row 1: its answer needs a judge .*grading\.open_answers=text"):
        check(_config(tmp_path, train))
    check(_config(tmp_path, train, "grading.open_answers=text"))


def test_a_judge_that_does_not_answer_is_named(tmp_path: Path) -> None:
    train = _write(tmp_path / "train.parquet", [_open_row("model")])
    judge = ("grading.judge.endpoints=[http://127.0.0.1:9/v1]", "grading.judge.model=judge")
    with pytest.raises(UserError, match=r"grading\.judge\.endpoints: none answers; http://127\.0\.0\.1:9/v1: does not"):
        check(_config(tmp_path, train, *judge))


def test_a_style_of_grading_that_is_not_known_is_named(tmp_path: Path) -> None:
    train = _write(tmp_path / "train.parquet", [_open_row("magic")])
    with pytest.raises(UserError, match=r"row 0: reward_model\.style is 'magic'; known are rule, model, judge"):
        check(_config(tmp_path, train))


@pytest.mark.parametrize("seed", ["-1", "x", "2147483648"])
def test_an_impossible_seed_is_named_with_its_range(seed: str, tmp_path: Path) -> None:
    train = _write(tmp_path / "train.parquet", [_row(0)])
    with pytest.raises(UserError, match=rf"seed='?{seed}'?: must be a whole number from 0 to"):
        check(_config(tmp_path, train, f"seed={seed}"))


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["monitors.window=1"], r"monitors\.window=1: must be"),
        (["sampling.oversample=2"], r"sampling\.oversample=2: needs sampling\.keep=on_correct"),
        (
            ["algorithm.filter_groups.enable=true", "algorithm.filter_groups.metric=accuracy"],
            r"algorithm\.filter_groups\.metric=accuracy: must be one of outcome, reward",
        ),
        (["algorithm.adv_estimator=gae", "reward_preset=gtpo"], r"adv_estimator=gae: .*needs codedance_grpo"),
    ],
)
def test_settings_that_would_end_a_run_later_are_named_now(overrides: list[str], told: str, tmp_path: Path) -> None:
    train = _write(tmp_path / "train.parquet", [_row(0)])
    with pytest.raises(UserError, match=told):
        check(_config(tmp_path, train, *overrides))
