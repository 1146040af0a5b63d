"""Files modelled on public bug reports, from the check to the start of a rollout (tests/data/cases/data_loading)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from codedance_verl.errors import UserError
from codedance_verl.grading.rules.alternatives import encode_alternatives
from tests.unit.data.loading import check, load, same_for_both

CASES = Path(__file__).parents[2] / "data" / "cases"
REFUSED = {"data_loading-18": "row 0: reward_model.ground_truth is missing or empty: a list without an item"}
"""Cases whose expected outcome is a refusal; all others load."""

ABSOLUTE = {
    "data_loading-06": lambda path: {"bytes": None, "path": path},
    "data_loading-07": lambda path: {"image": path},
    "passing-51": lambda path: {"bytes": None, "path": path},
}
"""Cases whose file holds absolute paths and is made on the spot."""


def _cases() -> list[Any]:
    found = []
    for folder in ("data_loading", "passing_data"):
        for case in json.loads((CASES / folder / "index.json").read_text())["cases"]:
            names = case["input"] if isinstance(case["input"], list) else [case["input"]]
            found.append(pytest.param(case["id"], [CASES / folder / name for name in names], id=case["id"]))
    return found


def _with_absolute_path(case: str, tmp_path: Path) -> list[Path]:
    image = tmp_path / "a b" / "a.png"
    image.parent.mkdir()
    shutil.copy(CASES / "data_loading" / "files" / "img" / "a.png", image)
    row = pd.read_parquet(CASES / "data_loading" / "files" / "pandas_bytes.parquet").iloc[0].to_dict()
    row["images"] = np.array([ABSOLUTE[case](str(image))])
    pd.DataFrame([row]).to_parquet(tmp_path / "made.parquet")
    return [tmp_path / "made.parquet"]


@pytest.mark.parametrize(("case", "files"), _cases())
def test_a_case_comes_out_as_expected(case: str, files: Sequence[Path], tmp_path: Path) -> None:
    if case in ABSOLUTE:
        files = _with_absolute_path(case, tmp_path)
    if case in REFUSED:
        for attempt in (lambda: check(files), lambda: load(files, tmp_path / "table")):
            with pytest.raises(UserError, match=REFUSED[case].replace("[", r"\[")):
                attempt()
        return
    checked = check(files)
    loaded = load(files, tmp_path / "table")
    assert len(loaded) == sum(found.good for found in checked) > 0
    for record in loaded:
        assert record.code_images and same_for_both(record)
        assert record.prompt.count("<|image_pad|>") >= len(record.code_images)
        assert set(record.item) == {
            "data_source", "ability", "reward_model", "extra_info", "raw_prompt", "dummy_tensor", "index",
            "tools_kwargs", "interaction_kwargs",
        }  # fmt: skip
    names = [record.item["extra_info"]["record_id"] for record in loaded]
    assert len(set(names)) == len(names)


def _mean(case: str, tmp_path: Path) -> float:
    (loaded,) = load([CASES / "data_loading" / "files" / f"{case}.parquet"], tmp_path)
    return float(np.asarray(loaded.code_images[0]).mean())


@pytest.mark.parametrize("case", ["img_rgba", "img_palette_tr", "img_la", "hf_rgba"])
def test_transparency_is_white(case: str, tmp_path: Path) -> None:
    assert 100 < _mean(case, tmp_path) < 255


def test_sixteen_bits_are_scaled(tmp_path: Path) -> None:
    assert 100 < _mean("img_i16", tmp_path) < 155


def test_an_image_stands_upright(tmp_path: Path) -> None:
    (loaded,) = load([CASES / "data_loading" / "files" / "img_exif6.parquet"], tmp_path)
    assert loaded.code_images[0].size == (40, 80) == loaded.views[0].size


def test_other_truths_words_and_names_keep_their_meaning(tmp_path: Path) -> None:
    def one(name: str) -> Any:
        return load([CASES / "data_loading" / "files" / f"{name}.parquet"], tmp_path)

    assert one("gt_list_str")[0].truth == encode_alternatives(["red", "crimson"])
    assert [record.truth for record in one("two_b")] == ["7"]
    assert "<video> tag do? <audio>" in one("prompt_video_word")[0].prompt
    assert [record.item["index"] for record in one("extra_index_dup")] == ["own/x/3", "own/x/3@extra_index_dup:1"]
    (checked,) = check([CASES / "data_loading" / "files" / "extra_index_dup.parquet"])
    assert "1 records repeat the extra_info.index of one before" in checked.notes[0]
