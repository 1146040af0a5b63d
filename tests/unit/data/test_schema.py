from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from codedance_verl.data import checking
from codedance_verl.data.checking import check_file, keep_good_rows
from codedance_verl.data.fields import Message
from codedance_verl.data.reading import open_rows
from codedance_verl.data.rows import Kind
from codedance_verl.data.schema import Record, read_records, write_records
from codedance_verl.errors import UserError


def _png(colour: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10), colour).save(buffer, "PNG")
    return buffer.getvalue()


def _row(**changes: Any) -> dict[str, Any]:
    row = {
        "data_source": "somewhere/charts",
        "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "<image>How many?"}],
        "images": [{"bytes": _png(), "path": None}],
        "ability": "vision",
        "reward_model": {"style": "rule", "ground_truth": "4"},
        "extra_info": {"split": "train", "index": 3, "question": "How many?", "answer": "4"},
    }
    return {**row, **changes}


def _file(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "train.parquet"
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    record = Record(
        data_source="codedance_demo/easy",
        prompt=(Message("user", "<image>Which colour?"),),
        images=(_png(),),
        ability="easy",
        ground_truth="red",
        extra_info={
            "split": "test",
            "index": 1,
            "record_id": "easy-1",
            "question": "Which colour?",
            "answer": "red",
            "need_tools_kwargs": False,
            "kind": "easy",
            "difficulty": "easy",
            "variant": "grey",
            "control": "grey_observations",
            "temperature": 0.0,
        },
    )
    write_records(tmp_path / "a.parquet", [record])
    assert read_records(tmp_path / "a.parquet").records == (record,)
    assert (record.question, record.record_id) == ("Which colour?", "easy-1")
    assert record.load_images()[0].getpixel((0, 0)) == (255, 0, 0)


def test_the_published_form_loads_with_images_as_paths_and_tool_arguments(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(_png("blue"))
    tools = {"execute_python_code": {"create_kwargs": {"image": "pictures/a.png"}}}
    extra = {"split": "train", "index": 8, "need_tools_kwargs": True, "tools_kwargs": tools}
    path = _file(tmp_path, _row(images=[{"bytes": None, "path": "pictures/a.png"}], extra_info=extra))
    (record,) = read_records(path).records
    assert record.load_images()[0].getpixel((0, 0)) == (0, 0, 255)
    assert record.question == "How many?"
    assert record.record_id == "somewhere/charts/8"
    assert "tools_kwargs" not in record.extra_info, "the image a second time"


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"images": [{"bytes": _png()[:40], "path": None}]}, r"images\[0\] is not a readable image"),
        ({"images": [{"bytes": b"not a picture", "path": None}]}, r"images\[0\] is not a readable image \(unknown"),
        ({"images": [{"bytes": None, "path": "gone.png"}]}, r"images\[0\] names the file .*gone.png, which cannot"),
        ({"images": [{"bytes": None, "path": None}]}, r'images\[0\] has neither "bytes" nor "path"'),
        ({"images": []}, "it has no image"),
        ({"images": None}, "it has no image"),
        ({"images": [{"bytes": _png(), "path": None}] * 2}, "prompt has 1 <image> but there are 2 images"),
        ({"prompt": [{"role": "user", "content": "How many?"}]}, "prompt has 0 <image> but there are 1 images"),
        ({"prompt": [{"role": "system", "content": "<image>"}]}, "no user message"),
        ({"prompt": None}, "prompt is missing"),
        ({"reward_model": {"style": "rule", "ground_truth": None}}, "ground_truth is missing or empty"),
        ({"reward_model": {"style": "rule", "ground_truth": " "}}, "ground_truth is missing or empty"),
        ({"data_source": None}, "data_source is missing"),
    ],
)
def test_a_bad_row_is_named_with_its_fault_and_skipped_only_when_asked(
    tmp_path: Path, changes: dict[str, Any], fault: str
) -> None:
    path = _file(tmp_path, _row(), _row(**changes), _row())
    with pytest.raises(UserError, match=rf"^train.parquet row 1: .*{fault}.*; fix or drop the row, or set skip_bad"):
        read_records(path)
    with pytest.raises(UserError, match="row 1"):
        check_file(path)
    dataset = read_records(path, skip_bad_records=True)
    assert len(dataset.records) == 2
    assert len(dataset.skipped) == 1 and "row 1" in dataset.skipped[0]
    checked = check_file(path, skip_bad_records=True)
    assert (checked.good, checked.bad_rows, checked.lines) == (2, (1,), dataset.skipped)


def _demonstration(question: str = "<image>Hm?") -> dict[str, Any]:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": "<answer>4</answer>"}]
    return {"messages": messages, "images": [{"bytes": _png()}]}


def test_demonstrations_are_checked_too(tmp_path: Path) -> None:
    good, bad = _demonstration(), _demonstration("<image><image>Hm?")
    assert check_file(_file(tmp_path, good)).good == 1
    with pytest.raises(UserError, match="row 1: messages has 2 <image> but there are 1 images"):
        check_file(_file(tmp_path, good, bad))
    unanswered = {**good, "messages": good["messages"][:1]}
    with pytest.raises(UserError, match="row 1: messages has no assistant message"):
        check_file(_file(tmp_path, good, unanswered))


def test_a_file_of_the_other_kind_is_refused(tmp_path: Path) -> None:
    path = _file(tmp_path, _demonstration())
    with pytest.raises(UserError, match="holds no questions for RL: it has no column reward_model"):
        check_file(path, needs=Kind.QUESTIONS)
    with pytest.raises(UserError, match="holds no demonstrations for SFT: it has no column messages"):
        check_file(_file(tmp_path, _row()), needs=Kind.DEMONSTRATIONS)


def test_files_that_are_no_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no data file at .*: there is none; .*`codedance data make"):
        read_records(tmp_path / "none.parquet")
    with pytest.raises(UserError, match=r"no data file at .*: that is a folder"):
        read_records(tmp_path)
    (tmp_path / "text.parquet").write_text("hello")
    with pytest.raises(UserError, match="is not a readable parquet file"):
        read_records(tmp_path / "text.parquet")
    with pytest.raises(UserError, match="holds no usable record"):
        check_file(_file(tmp_path, _row(prompt=None)), skip_bad_records=True)


def test_a_file_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot write .*a.parquet: .*; free some space or choose another folder"):
        write_records(tmp_path / "file" / "a.parquet", [])


@pytest.mark.parametrize("bad", [300, 1])
def test_a_copy_of_the_good_rows_may_lack_a_whole_batch(tmp_path: Path, bad: int) -> None:
    path = _file(tmp_path, *[_row(images=[{"bytes": b"no image", "path": None}])] * bad, _row(), _row())
    checked = check_file(path, skip_bad_records=True)
    keep_good_rows(path, tmp_path / "good.parquet", checked.bad_rows)
    assert check_file(tmp_path / "good.parquet").good == 2


@pytest.mark.parametrize("form", ["parts", "file", "json", "plain"])
def test_a_copy_of_the_good_rows_finds_its_images_and_keeps_its_numbers(tmp_path: Path, form: str) -> None:
    (tmp_path / "img").mkdir()
    (tmp_path / "img" / "a.png").write_bytes(_png())
    reference = "file://img/a.png" if form == "file" else "img/a.png"
    part = [{"type": "image", "image": reference}, {"type": "text", "text": "How many?"}]
    good: dict[str, Any] = {"images": [reference], "prompt": json.dumps([{"role": "user", "content": "<image>?"}])}
    if form in ("parts", "json"):
        good = {"images": None, "prompt": json.dumps([{"role": "user", "content": part}])}
    path = _file(tmp_path, _row(**{**good, "prompt": "no image"}), _row(**good))
    checked = check_file(path, skip_bad_records=True)
    assert checked.bad_rows == (0,)
    copy = tmp_path / "run" / "data" / "good.parquet"
    keep_good_rows(path, copy, checked.bad_rows)
    assert check_file(copy).good == 1
    assert [read.number for read in open_rows(copy).read()] == [1]


def test_images_that_no_session_takes_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _file(tmp_path, _row())
    assert check_file(path).good == 1
    monkeypatch.setattr(checking, "MAX_INPUT_BYTES", 10)
    with pytest.raises(UserError, match="row 0: its images have 0 MiB, and the sandbox takes"):
        check_file(path)


def test_values_that_python_cannot_hold_cost_their_row(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([_row(), _row()])
    broken = pa.array([b"\xff\xfe", b"fine"], pa.binary()).view(pa.string())
    place = table.schema.get_field_index("data_source")
    pq.write_table(table.set_column(place, "data_source", broken), tmp_path / "broken.parquet")
    checked = check_file(tmp_path / "broken.parquet", skip_bad_records=True)
    assert checked.bad_rows == (0,) and "a value of it cannot be read" in checked.lines[0]
    nested = _file(tmp_path, _row(extra_info="[" * 100_000))
    with pytest.raises(UserError, match="row 0: extra_info is text that is no JSON"):
        check_file(nested)


def test_the_first_record_that_may_need_a_judge_is_found_by_style_and_data_source(tmp_path: Path) -> None:
    open_one, closed = {"style": "model", "ground_truth": "a red bus"}, {"style": "model", "ground_truth": "7"}
    rows = (_row(reward_model=closed), _row(reward_model=open_one), _row(reward_model=open_one))
    charts = _row(reward_model={**open_one, "style": "judge"}, data_source="charts")
    checked = check_file(_file(tmp_path, *rows, charts))
    source = rows[0]["data_source"]
    assert checked.open_records == {("model", source): 1, ("judge", "charts"): 3}
    assert check_file(_file(tmp_path, rows[0])).open_records == {}
