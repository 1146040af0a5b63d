"""Forms in which people's files have questions and demonstrations: each means the same, or is refused in one line."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from codedance_verl.data import fields
from codedance_verl.data.checking import check_file, keep_good_rows
from codedance_verl.data.fields import BadRow
from codedance_verl.data.rows import Keys, Kind
from codedance_verl.errors import UserError
from codedance_verl.grading.rules.alternatives import encode_alternatives
from codedance_verl.images import decode
from tests.unit.data.loading import check, dataset, load, same_for_both

POLARS = Path(__file__).parents[2] / "data" / "polars"
BLUE = (10, 20, 200)


def png(colour: tuple[int, int, int] = BLUE) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(buffer, "PNG")
    return buffer.getvalue()


def row(**changes: Any) -> dict[str, Any]:
    good = {
        "data_source": "own/x",
        "prompt": [{"role": "user", "content": "<image>What colour?"}],
        "images": [{"bytes": png()}],
        "ability": "vqa",
        "reward_model": {"style": "rule", "ground_truth": "blue"},
        "extra_info": {"split": "train", "index": 0, "question": "What colour?"},
    }
    return {name: value for name, value in {**good, **changes}.items() if value is not ...}


def _user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def write(folder: Path, *rows: dict[str, Any], name: str = "a.parquet") -> Path:
    pq.write_table(pa.Table.from_pylist(list(rows)), folder / name)
    return folder / name


def _file(folder: Path, name: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png())
    return path


REFERENCES: dict[str, Callable[[Path], Any]] = {
    "raw bytes": lambda folder: [png()],
    "bytes": lambda folder: [{"bytes": png()}],
    "bytes and null path": lambda folder: [{"bytes": png(), "path": None}],
    "bytes and a name that is no path": lambda folder: [{"bytes": png(), "path": "gone.png"}],
    "null bytes and path": lambda folder: [{"bytes": None, "path": _file(folder, "i/a.png").relative_to(folder)}],
    "empty bytes and path": lambda folder: [{"bytes": b"", "path": _file(folder, "a.png").name}],
    "path with spaces": lambda folder: [{"path": _file(folder, "a b/c d.png").relative_to(folder)}],
    "path that is not ASCII": lambda folder: [{"path": _file(folder, "图/é.png").relative_to(folder)}],
    "absolute path": lambda folder: [{"path": _file(folder, "a.png")}],
    "image key": lambda folder: [{"image": _file(folder, "a.png")}],
    "image key with a file address": lambda folder: [{"image": f"file://{_file(folder, 'a b.png')}"}],
    "escaped file address": lambda folder: [f"file://{_file(folder, 'a b.png')}".replace(" ", "%20")],
    "plain text": lambda folder: [_file(folder, "a.png").name],
    "data address": lambda folder: ["data:image/png;base64," + base64.encodebytes(png()).decode()],
    "nested image": lambda folder: [{"image": {"bytes": png(), "path": None}}],
    "not in a list": lambda folder: {"bytes": png()},
    "raw bytes not in a list": lambda folder: png(),
    "a path not in a list": lambda folder: _file(folder, "a.png").name,
    "nested arrays": lambda folder: [[{"bytes": png()}]],
    "arrays of uint8": lambda folder: [list(png())],
}


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return {key: _plain(item) for key, item in value.items()} if isinstance(value, dict) else value


@pytest.mark.parametrize("form", REFERENCES)
def test_an_image_may_be_referred_to_in_any_of_these_forms(form: str, tmp_path: Path) -> None:
    path = write(tmp_path, row(images=_plain(REFERENCES[form](tmp_path))))
    assert check([path])[0].good == 1
    (loaded,) = load([path], tmp_path / "table")
    assert loaded.code_images[0].getpixel((0, 0)) == BLUE and same_for_both(loaded)


@pytest.mark.parametrize(
    ("prompt", "count"),
    [
        (json.dumps([{"role": "user", "content": "<image>What colour?"}]), 1),
        ("<image>What colour?", 1),
        ({"role": "user", "content": "<image>What colour?"}, 1),
        ([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "<image>What colour?"}], 1),
        ([{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What colour?"}]}], 1),
        ([{"role": "user", "content": [{"type": "image", "text": None}, {"type": None, "text": "What colour?"}]}], 1),
        ([_user("<image>What"), {"role": "assistant", "content": "?"}, _user("colour?")], 1),
        ([{"role": "user", "content": "<image><image>What colour?"}], 2),
    ],
)  # fmt: skip
def test_messages_may_be_text_json_or_lists_of_parts(prompt: Any, count: int, tmp_path: Path) -> None:
    path = write(tmp_path, row(prompt=prompt, images=[{"bytes": png()}] * count))
    assert check([path])[0].good == 1
    (loaded,) = load([path], tmp_path / "table")
    assert "colour?" in loaded.prompt and len(loaded.code_images) == count == len(loaded.views)


def test_parts_may_carry_their_images(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "What colour?"}, {"type": "image", "bytes": png()}]
    path = write(tmp_path, row(prompt=[{"role": "user", "content": parts}], images=...))
    (loaded,) = load([path], tmp_path / "table")
    assert loaded.code_images[0].getpixel((0, 0)) == BLUE and same_for_both(loaded)


@pytest.mark.parametrize(
    ("truth", "text"),
    [
        (7, "7"), (7.0, "7"), (2.5, "2.5"), (True, "True"), ("  red ", "  red "), (["red"], "red"),
        (["red", "crimson", "red"], encode_alternatives(["red", "crimson"])), ([3, 4], encode_alternatives(["3", "4"])),
    ],
)  # fmt: skip
def test_truths_are_text_numbers_or_any_of_a_list(truth: Any, text: str, tmp_path: Path) -> None:
    (loaded,) = load([write(tmp_path, row(reward_model={"ground_truth": truth}))], tmp_path / "table")
    assert loaded.truth == text and loaded.item["reward_model"]["style"] == "rule"


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"reward_model": {"ground_truth": {"a": 1}}}, "ground_truth is a mapping"),
        ({"reward_model": {"ground_truth": [["a"], ["b"]]}}, r"ground_truth\[0\] is a list"),
        ({"reward_model": {"ground_truth": []}}, "ground_truth is missing or empty"),
        ({"reward_model": {"ground_truth": ["red", ""]}}, r"ground_truth\[1\] is missing or empty"),
        ({"reward_model": {"ground_truth": "<answer> </answer>"}}, "ground_truth is missing or empty"),
        ({"reward_model": {"ground_truth": float("nan")}}, "ground_truth is missing or empty"),
        ({"reward_model": {"ground_truth": "red", "style": "own"}}, "reward_model.style is 'own'; known are"),
        ({"images": [{"path": "https://example.com/a.png"}]}, r"images\[0\] is the address .*; download it"),
        ({"images": [{"path": "~/a.png"}]}, "names the file .*~/a.png, which cannot be read"),
        ({"prompt": [{"role": "user", "content": "What colour?"}]}, "prompt has 0 <image> but there are 1 images"),
        ({"prompt": "What colour?", "images": ...}, "it has no image"),
        ({"videos": ["a.mp4"]}, "it has videos, which this environment does not take"),
        ({"prompt": [_user("<image>?"), {"role": "assistant", "content": "A"}]}, "ends with an assistant message"),
        ({"prompt": [{"role": "user", "content": [{"type": "video", "video": "a"}]}]}, "is video, which this env"),
        ({"extra_info": "{"}, "extra_info is text that is no JSON"),
        ({"prompt": '[{"role": "user", "content": "<image>\\ud83d"}]'}, "holds half of a surrogate pair"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_by_file_and_row(changes: dict[str, Any], fault: str, tmp_path: Path) -> None:
    path = write(tmp_path, row(**changes))
    with pytest.raises(UserError, match=rf"^a.parquet row 0: .*{fault}"):
        check([path])
    if "names the file" in fault:  # found when it is read, which is after the check
        assert len(dataset([path], tmp_path / "table")) == 1
        return
    with pytest.raises(UserError, match=rf"^a.parquet row 0: .*{fault}"):
        dataset([path], tmp_path / "table")


def test_published_rl_data_loads_as_it_is(tmp_path: Path) -> None:
    tools = {"execute_python_code": {"create_kwargs": {"image": {"bytes": png(), "path": None}}}}
    objects = {"label": "lamp", "point": {"x": [1.0], "y": [2.0]}}
    extra = {"index": 4, "need_tools_kwargs": True, "tools_kwargs": tools, "detected_objects": objects, "answer": "4"}
    published = row(
        prompt=...,
        messages=[{"role": "system", "content": "Think."}, {"role": "user", "content": "<image>\nHow many lamps?"}],
        images=[png()],
        reward_model={"ground_truth": "4", "style": "model"},
        extra_info={**extra, "question": "How many lamps?", "split": "train"},
    )
    path = write(tmp_path, published, published)
    assert check([path])[0].good == 2
    loaded = load([path], tmp_path / "table")
    assert loaded[0].item["reward_model"] == {"style": "model", "ground_truth": "4"} and same_for_both(loaded[0])
    assert loaded[0].item["tools_kwargs"] == {} and "tools_kwargs" not in loaded[0].item["extra_info"]
    assert [item["role"] for item in loaded[0].item["raw_prompt"]] == ["system", "user"]


def test_other_published_forms_load(tmp_path: Path) -> None:
    deep_eyes = row(env_name="visual_toolbox_v2", reward_model={"style": "qa", "ground_truth": "red"})
    deep_eyes["extra_info"] = {"index": "sa-12", "question": "What colour?", "answer": "red", "split": "train"}
    vtool = row(source="h_bar", split="train", agent_name="tool_agent", session_id="x", trajectory="y", trace=True,
                sampling_params="z", views="v", uid="u", index=9, raw_prompt="r", tools_kwargs="t")  # fmt: skip
    files = [write(tmp_path, deep_eyes, name="d.parquet"), write(tmp_path, vtool, name="v.parquet")]
    first, second = load(files, tmp_path / "table")
    assert (first.item["reward_model"]["style"], first.item["index"]) == ("model", "own/x/sa-12")
    assert second.item["index"] == "own/x/0" and isinstance(second.item["raw_prompt"], list)
    assert "agent_name" not in second.item


def test_files_of_all_writers_load_together(tmp_path: Path) -> None:
    pandas = tmp_path / "pandas.parquet"
    pd.DataFrame([row(images=[{"bytes": png(), "path": None}]), row(extra_info=None)]).to_parquet(pandas)
    image = Image.new("RGB", (40, 30), BLUE)
    features = datasets.Features(
        {
            "data_source": datasets.Value("string"),
            "prompt": [{"role": datasets.Value("string"), "content": datasets.Value("string")}],
            "images": datasets.Sequence(datasets.Image()),
            "reward_model": {"style": datasets.Value("string"), "ground_truth": datasets.Value("int64")},
        }
    )
    rows = [row(images=[image], reward_model={"style": "rule", "ground_truth": 3}, ability=..., extra_info=...)]
    datasets.Dataset.from_list(rows, features=features).to_parquet(tmp_path / "hf.parquet")
    views = pa.schema([("data_source", pa.string_view()), ("prompt", pa.string_view()),
                       ("images", pa.large_list(pa.binary_view())),
                       ("reward_model", pa.struct([("ground_truth", pa.string_view())]))])  # fmt: skip
    viewed = row(prompt="<image>What?", images=[png()], reward_model={"ground_truth": "blue"})
    pq.write_table(pa.Table.from_pylist([viewed], schema=views), tmp_path / "views.parquet")
    coded = pa.Table.from_pylist([row()])
    coded = coded.set_column(0, "data_source", coded.column(0).dictionary_encode())
    pq.write_table(coded, tmp_path / "coded.parquet")
    files = [pandas, tmp_path / "hf.parquet", tmp_path / "views.parquet", tmp_path / "coded.parquet"]
    files += [POLARS / "structs.parquet", POLARS / "raw.parquet"]
    good = sum(checked.good for checked in check(files))
    loaded = load(files, tmp_path / "table")
    assert len(loaded) == good == 11 and all(same_for_both(record) for record in loaded)
    assert [record.truth for record in loaded] == [*["blue"] * 2, "3", *["blue"] * 2, *["0", "1", "2"] * 2]
    names = [record.item["extra_info"]["record_id"] for record in loaded]
    assert len(set(names)) == 11 and names[1] == "own/x/pandas:1" and names[8] == "own/polars/0@raw:0"


def test_keys_name_columns(tmp_path: Path) -> None:
    other = row(prompt=..., images=..., image={"bytes": png()}, query="<image>What colour?")
    path = write(tmp_path, other)
    (loaded,) = load([path], tmp_path / "table", image_key="image", prompt_key="query")
    assert loaded.code_images and same_for_both(loaded)
    with pytest.raises(
        UserError, match=r"holds no questions for RL: it has no column prompt \(data.prompt_key\); it has"
    ):
        check([path])
    with pytest.raises(UserError, match=r"has no column pictures \(data.image_key\); it has data_source"):
        check([path], Keys("query", "pictures"))
    single = write(tmp_path, row(images=..., image={"bytes": png()}))
    for attempt in (lambda: check([single]), lambda: load([single], tmp_path / "table")):
        with pytest.raises(UserError, match=r"no column images, but a column image; set data\.image_key=image"):
            attempt()


def test_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([row()])
    pq.write_table(table.append_column("images", table.column("images")), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="has several columns of the name images; drop or rename them"):
        check([tmp_path / "a.parquet"])


def test_good_rows_are_kept_with_their_images(tmp_path: Path) -> None:
    _file(tmp_path, "i/a.png")
    rows = [row(images=[{"bytes": None, "path": name}]) for name in ("i/a.png", "gone.png", "i/a.png")]
    path = write(tmp_path, *rows)
    checked = check_file(path, skip_bad_records=True)
    target = tmp_path / "elsewhere" / "kept.parquet"
    keep_good_rows(path, target, checked.bad_rows)
    assert checked.bad_rows == (1,) and check([target])[0].good == 2
    assert [record.code_images[0].getpixel((0, 0)) for record in load([target], tmp_path / "table")] == [BLUE] * 2
    assert pq.read_schema(target).equals(pq.read_schema(path))


def test_half_a_jpeg_is_found(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.effect_noise((640, 480), 60).convert("RGB").save(buffer, "JPEG")
    whole = buffer.getvalue()
    assert decode(whole).size == (640, 480)
    for share in (0.5, 0.9, 0.99):
        path = write(tmp_path, row(images=[whole[: int(len(whole) * share)]]))
        with pytest.raises(UserError, match=r"row 0: images\[0\] is not a readable image"):
            check([path])
    assert check([write(tmp_path, row(images=[whole]))])[0].good == 1


def test_demonstrations_may_be_without_images(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "What is 1 + 1?"}, {"role": "assistant", "content": "<answer>2</answer>"}]
    path = write(tmp_path, {"messages": talk})
    assert check_file(path, needs=Kind.DEMONSTRATIONS).good == 1


def test_only_regular_files_of_a_bounded_size_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"x" * 100)
    monkeypatch.setattr(fields, "MAX_FILE_BYTES", 99)
    for path, fault in (
        (tmp_path / "pipe", "it is no regular file"),
        (Path("/dev/zero"), "it is no regular file"),
        (tmp_path / "large", "it has 0 MiB; an image may have 0"),
    ):
        with pytest.raises(BadRow, match=fault):
            fields.read_source(path, "images[0]")
