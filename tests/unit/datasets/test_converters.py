"""Published layouts, from the file to what verl's dataset gives the trainer."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codedance_verl.data import json_lines
from codedance_verl.data.checking import check_file
from codedance_verl.data.fields import BadRow
from codedance_verl.data.rows import Kind
from codedance_verl.data.schema import read_records
from codedance_verl.data.table import open_table
from codedance_verl.datasets.commands import Options, convert
from codedance_verl.datasets.converter import differences, find_form, schema_of
from codedance_verl.datasets.converters import CONVERTERS
from codedance_verl.datasets.converters.code_traces import answered, turns_of
from codedance_verl.datasets.converters.code_traces import question_in as asked_by_retool
from codedance_verl.datasets.converters.deepeyes import question_in
from codedance_verl.environment.observations import observation_text
from codedance_verl.errors import UserError
from codedance_verl.formats import get_format
from codedance_verl.runtime.locks import exclusive_lock
from codedance_verl.types import Execution, ExecutionStatus
from tests.unit.data.loading import dataset
from tests.unit.datasets import published

QUESTIONS = {
    "codedance-rl": (published.codedance_rl, "How many lamps, 0?", "0", "model"),
    "codedance-rl, prompt": (published.codedance_rl_prompt, "How many lamps, 0?", "0", "model"),
    "deepeyes-47k": (published.deepeyes, "What colour is the bicycle?", "red", "model"),
    "chart-refocus": (published.refocus, "What is the value?", "12", "model"),
    "chart-refocus, verl": (published.refocus_verl, "How many lamps, 0?", "0", "model"),
    "chart-refocus, raw": (published.refocus_raw, "What is the value?", "12", "model"),
    "pixmocount": (published.pixmocount, "How many people are there in the image?", "2", "count"),
    "thinklite": (published.thinklite, "How many?", "4", "model"),
    "mmk12": (published.mmk12, "AB is 3. A. 3 B. 5", "B", "model"),
    "geoqa": (published.geoqa, "Find the angle.", "60°", "model"),
    "geoqa, lines": (published.geoqa_lines, "Find the angle.", "60", "model"),
    "geoqa, conversations": (published.geoqa_conversations, "Find the angle.\nChoices:\nA: 32°\nB: 58°", "B", "model"),
    "chartqapro": (published.chartqapro, "Question: What is it in 2018?\nAnswer: 4\n\nAnd in 2019?", "7", "model"),
    "thyme": (published.thyme, "What colour is it?", "red", "model"),
}
TRACES = {"retool": published.retool, "retool, tool calls": published.retool_turns}
NAMED = {"geoqa, conversations"}
"""Files that are of a set only where it is named."""

DEMONSTRATIONS = {
    **TRACES,
    "codedance-sft": published.codedance_sft,
    "chartgemma": published.chartgemma,
    "mulberry": published.mulberry,
}


def _converted(file: Path, tmp_path: Path, source: str = "", **options: Any) -> Path:
    out = tmp_path / "made" / "out.parquet"
    folder = tmp_path / "downloads"
    convert([file], Options(out, **options), source, image_folder=folder if folder.is_dir() else None)
    return out


def _rows(path: Path) -> list[dict[str, Any]]:
    return list(pq.read_table(path).to_pylist())


def test_every_converter_has_a_file_here() -> None:
    assert {name.split(",")[0] for name in (*QUESTIONS, *DEMONSTRATIONS)} == set(CONVERTERS)


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_published_layout_reaches_the_trainer(name: str, tmp_path: Path) -> None:
    make, question, truth, style = QUESTIONS[name]
    file, source = make(tmp_path), name.split(",")[0]
    if name not in NAMED:
        assert find_form(file, list(CONVERTERS.values()))[0].name == source
    out = _converted(file, tmp_path, source if name in NAMED else "")
    record = read_records(out).records[0]
    assert (record.question, record.ground_truth, record.style) == (question, truth, style)
    assert record.extra_info["record_id"] == f"{name.split(',')[0]}/{file.stem}:0"
    assert record.images[0] == published.png(0)
    assert check_file(out, needs=Kind.QUESTIONS).good == pq.read_metadata(out).num_rows
    item = dataset([out], tmp_path / "table")[0]
    assert item["reward_model"] == {"style": style, "ground_truth": truth}
    assert item["extra_info"]["record_id"] == record.extra_info["record_id"]


def test_demonstrations_keep_their_messages_and_images(tmp_path: Path) -> None:
    out = _converted(published.codedance_sft(tmp_path), tmp_path)
    found = open_table([out], tmp_path / "table", Kind.DEMONSTRATIONS)
    assert [message.role for message in found[2].messages] == ["user", "assistant", "user", "assistant"]
    assert [source.read_bytes() for source in found[2].sources] == [published.png(2), published.png(52)]
    assert found[2].extra_info["record_id"] == "codedance-sft/sft:2"


@pytest.mark.parametrize("make", TRACES.values(), ids=TRACES)
def test_traces_of_retool_become_turns_of_the_environment(make: Callable[[Path], Path], tmp_path: Path) -> None:
    row = open_table([_converted(make(tmp_path), tmp_path, "retool")], tmp_path / "table", Kind.DEMONSTRATIONS)[0]
    asked, called, fed_back, answered = row.messages
    assert (asked.role, asked.content) == ("user", "What is 1 + 2?")
    turn = get_format("code").parse(called.content)
    assert (called.role, turn.code, called.content[: turn.start].strip()) == (
        "assistant",
        "print(1 + 2)",
        "<think>I add them.</think>",
    )
    ran = Execution(ExecutionStatus.OK, "3\n")
    assert (fed_back.role, fed_back.content) == ("user", observation_text(ran))
    assert answered.content.startswith("<think>So it is 3.</think>")
    assert get_format("code").parse(answered.content).answer == "\\boxed{3}"
    assert row.sources == ()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("<code>\n```python\n1\n```\n</code><interpreter>1", "without </interpreter>"),
        ("I think so.<interpreter>1</interpreter><answer>1</answer>", "without a fenced Python block"),
        ("It is 1.", "neither an answer block nor"),
        ("It is \\boxed{1.", "neither an answer block nor"),
    ],
)
def test_a_trace_that_is_cut_is_a_bad_row(text: str, fault: str) -> None:
    with pytest.raises(BadRow, match=fault):
        turns_of(text)


def test_a_box_with_braces_becomes_the_answer_and_a_described_tool_is_refused() -> None:
    turn = answered("So it is half.\n\\boxed{\\frac{1}{2}}.")
    assert turn == "<think>So it is half.</think>\n<answer>\\boxed{\\frac{1}{2}}</answer>"
    with pytest.raises(BadRow, match="in words that are not known"):
        asked_by_retool("Output stands in <interpreter>. What is 1 + 1?")


@pytest.mark.parametrize("make", [published.retool, published.mulberry, published.geoqa_conversations])
def test_files_with_messages_alone_are_of_a_set_only_where_it_is_named(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="is in no known layout"):
        find_form(make(tmp_path), list(CONVERTERS.values()))


def test_a_short_reply_is_an_answer_and_the_request_for_its_form_goes(tmp_path: Path) -> None:
    direct = _rows(_converted(published.geoqa_conversations(tmp_path), tmp_path, "geoqa"))[1]
    assert direct["prompt"] == [{"role": "user", "content": "<image>\nFind the side."}]
    assert (direct["reward_model"]["ground_truth"], direct["extra_info"]["index"]) == ("4 cm", None)
    assert direct["extra_info"]["source_id"] == "1"


def test_sections_of_mulberry_become_thought_and_answer(tmp_path: Path) -> None:
    row = open_table(
        [_converted(published.mulberry(tmp_path), tmp_path, "mulberry")], tmp_path / "table", Kind.DEMONSTRATIONS
    )[0]
    text = row.messages[1].content
    assert get_format("code").parse(text).answer == "2"
    assert text.startswith("<think>### Rationales\nThere are two.\n### Step 1\nI count.</think>")
    assert [source.read_bytes() for source in row.sources] == [published.png()]


def test_chartgemma_is_asked_with_its_image_first(tmp_path: Path) -> None:
    file = published.chartgemma(tmp_path)
    assert find_form(file, list(CONVERTERS.values()))[0].name == "chartgemma"
    row = open_table([_converted(file, tmp_path)], tmp_path / "table", Kind.DEMONSTRATIONS)[0]
    assert [message.content for message in row.messages] == ["<image>\nWhat is shown?", "Sales by year."]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"image": ["no base64!"]}, "no base64"),
        ({"question": "<image>\nWrite <code> first."}, "asks for code in words"),
        ({"response": "It is red."}, "no text between <answer>"),
    ],
)
def test_a_row_of_thyme_in_another_wording_is_refused(change: dict[str, Any], fault: str, tmp_path: Path) -> None:
    file = published.thyme(tmp_path)
    table = pq.read_table(file)
    row = {**table.to_pylist()[0], **change}
    pq.write_table(pa.Table.from_pylist([row], schema=table.schema), file)
    with pytest.raises(UserError, match=fault):
        _converted(file, tmp_path)


def test_the_foreign_tool_of_deepeyes_is_gone(tmp_path: Path) -> None:
    rows = _rows(_converted(published.deepeyes(tmp_path), tmp_path))
    assert [[message["role"] for message in row["prompt"]] for row in rows] == [["user"]] * 3
    assert [row["prompt"][0]["content"] for row in rows] == [
        "<image>\nWhat colour is the bicycle?",
        "<image>\nWhat is it?",
        "<image>\nWhat is x?\nA. 1\nB. 2",
    ]
    assert [row["extra_info"]["source_id"] for row in rows] == ["sa-0", "sa-1", "sa-2"]
    assert "image_zoom_in_tool" not in str(rows)


def test_instructions_of_a_format_take_the_place_of_the_foreign_prompt(tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    convert([published.deepeyes(tmp_path)], Options(out), format="code")
    system = _rows(out)[0]["prompt"][0]
    assert system["role"] == "system" and "<code>" in system["content"] and "zoom" not in system["content"]


def test_a_request_for_the_tool_in_other_words_is_refused() -> None:
    with pytest.raises(Exception, match="image_zoom_in_tool in words that are not known"):
        question_in("Use the image_zoom_in_tool to say what it is.")


@pytest.mark.parametrize("question", ["How many lamps, 0?", None])
def test_the_foreign_tools_of_vtool_are_gone(question: str | None, tmp_path: Path) -> None:
    file = published.refocus_verl(tmp_path)
    table = pq.read_table(file)
    (row,) = table.to_pylist()
    row["extra_info"]["question"] = question
    pq.write_table(pa.Table.from_pylist([row], schema=table.schema), file)
    (made,) = _rows(_converted(file, tmp_path))
    assert [message["content"] for message in made["prompt"]] == ["<image>\nHow many lamps, 0?"]
    row["prompt"][1]["content"], row["extra_info"]["question"] = "<image> How many lamps, 0?", None
    pq.write_table(pa.Table.from_pylist([row], schema=table.schema), file)
    with pytest.raises(UserError, match="its prompt has no USER REQUEST:"):
        _converted(file, tmp_path)


def test_points_and_regions_are_kept(tmp_path: Path) -> None:
    (lamp, *_) = _rows(_converted(published.codedance_rl(tmp_path), tmp_path))
    assert lamp["extra_info"]["points"] == [
        {"label": "lamp", "x": 1.0, "y": 3.0},
        {"label": "lamp", "x": 2.5, "y": 4.0},
    ]
    (chart,) = _rows(_converted(published.refocus(tmp_path), tmp_path))
    assert chart["extra_info"]["regions"] == [{"label": None, "x1": 10.0, "y1": 20.0, "x2": 30.0, "y2": 25.0}]
    assert chart["extra_info"]["kind"] == "h_bar"


def test_missing_images_of_pixmo_are_listed_and_stop_nothing(tmp_path: Path) -> None:
    out = _converted(published.pixmocount(tmp_path), tmp_path)
    assert len(_rows(out)) == 2
    (line,) = (out.parent / "out.missing.tsv").read_text().splitlines()
    assert line.endswith("\thttps://example.org/2.png") and len(line.split("\t")[0]) == 64
    with pytest.raises(UserError, match="--image-folder"):
        convert([tmp_path / "pixmo.parquet"], Options(out))


def test_a_download_that_comes_later_is_found_by_the_next_run(tmp_path: Path) -> None:
    file = published.pixmocount(tmp_path)
    _converted(file, tmp_path)
    (tmp_path / "downloads" / "late.png").write_bytes(published.png(2))
    out = _converted(file, tmp_path)
    assert len(_rows(out)) == 3 and not (out.parent / "out.missing.tsv").exists()


def test_all_images_missing_are_listed_where_nothing_can_be_made(tmp_path: Path) -> None:
    file, out = published.pixmocount(tmp_path), tmp_path / "out.parquet"
    (empty := tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="3 images are missing, listed in"):
        convert([file], Options(out), image_folder=empty)
    assert len((tmp_path / "out.missing.tsv").read_text().splitlines()) == 3 and not out.exists()


def test_a_schema_tells_all_its_differences_at_once(tmp_path: Path) -> None:
    schema = published.rl_schema()
    del schema["data_source"]
    schema |= {"images": pa.int64(), "reward_model": pa.struct({"style": pa.string()})}
    file = published.write(tmp_path / "x.parquet", [{**published.rl_row(0), "images": 3}], schema)
    with pytest.raises(UserError) as caught:
        find_form(file, [CONVERTERS["codedance-rl"]])
    text = str(caught.value)
    assert "3 differences" in text and "\n" not in text
    assert "it has no column data_source (text)" in text and "it has no column reward_model.ground_truth" in text
    assert "column images is int64, not list of bytes or {bytes, path} or path" in text


def test_an_unknown_file_names_the_nearest_layout(tmp_path: Path) -> None:
    file = published.write(
        tmp_path / "x.parquet", [{"problem": "a", "image": b"x"}], {"problem": pa.string(), "image": pa.binary()}
    )
    with pytest.raises(UserError, match=r"x\.parquet is in no known layout \(nearest is .*it has no column"):
        find_form(file, list(CONVERTERS.values()))


def test_files_of_two_layouts_are_not_converted_into_one(tmp_path: Path) -> None:
    files = [published.thinklite(tmp_path), published.mmk12(tmp_path)]
    with pytest.raises(UserError, match=r"several layouts .*thinklite.*mmk12"):
        convert(files, Options(tmp_path / "o.parquet"))


def test_the_columns_of_json_lines_are_inferred(tmp_path: Path) -> None:
    assert set(schema_of(published.refocus_raw(tmp_path)).names) >= {"id", "query", "answer", "conversations"}


def _changed(**changes: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def change(row: dict[str, Any]) -> dict[str, Any]:
        extra = {**row["extra_info"], **changes.get("extra_info", {})}
        return {**row, **changes, "extra_info": extra}

    return change


_USER = {"role": "user", "content": "<image>\nx"}
MALFORMED: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], str]] = {
    "no source": (_changed(data_source=None), "data_source is missing or empty"),
    "empty source": (_changed(data_source=""), "data_source is missing or empty"),
    "no messages": (_changed(messages=None), "messages is missing or empty"),
    "no message": (_changed(messages=[]), "no user message"),
    "no role": (_changed(messages=[{"role": None, "content": "x"}]), r"prompt\[0\].role is missing"),
    "no content": (_changed(messages=[{"role": "user", "content": None}]), r"prompt\[0\].content is missing"),
    "empty content": (_changed(messages=[{"role": "user", "content": ""}]), r"prompt\[0\].content is missing"),
    "only a system message": (_changed(messages=[{"role": "system", "content": "x"}]), "no user message"),
    "ends with a reply": (
        _changed(messages=[_USER, {"role": "assistant", "content": "4"}]),
        "ends with an assistant message",
    ),
    "no images": (_changed(images=None), "images is missing or empty"),
    "empty list of images": (_changed(images=[]), "it has no image"),
    "empty image": (_changed(images=[b""]), r"images\[0\]"),
    "null image": (_changed(images=[None]), r"images\[0\]"),
    "no image file": (_changed(images=[b"not an image"]), r"images\[0\] is not a readable image"),
    "truncated image": (
        _changed(images=[published.png(size=(300, 300))[:200]]),
        r"images\[0\] is not a readable image",
    ),
    "a page of HTML": (_changed(images=[b"<html>404</html>"]), r"images\[0\] is not a readable image"),
    "two images, one mark": (_changed(images=[published.png(), published.png(1)]), "1 <image> but there are 2 images"),
    "two marks, one image": (
        _changed(messages=[{"role": "user", "content": "<image><image>\nx"}]),
        "2 <image> but there are 1 images",
    ),
    "no mark": (_changed(messages=[{"role": "user", "content": "x"}]), "0 <image> but there are 1 images"),
    "no reward": (_changed(reward_model=None), "reward_model.ground_truth is missing or empty"),
    "no truth": (_changed(reward_model={"ground_truth": None, "style": "model"}), "ground_truth is missing or empty"),
    "blank truth": (
        _changed(reward_model={"ground_truth": "  ", "style": "model"}),
        "ground_truth is missing or empty",
    ),
    "empty tags": (
        _changed(reward_model={"ground_truth": "<answer></answer>", "style": "model"}),
        "ground_truth is missing or empty",
    ),
    "unknown style": (_changed(reward_model={"ground_truth": "4", "style": "gpt"}), "reward_model.style is 'gpt'"),
    "x without y": (
        _changed(extra_info={"detected_objects": {"label": "a", "point": {"x": [1.0], "y": []}}}),
        "1 x and 0 y",
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_row_is_named_with_its_cure_and_can_be_skipped(name: str, tmp_path: Path) -> None:
    change, fault = MALFORMED[name]
    rows = [published.rl_row(0), change(published.rl_row(1)), published.rl_row(2)]
    file = published.write(tmp_path / "shard.parquet", rows, published.rl_schema())
    with pytest.raises(UserError, match=rf"^shard\.parquet row 1: .*{fault}.*; fix or drop the row, .*--skip-bad$"):
        _converted(file, tmp_path)
    out = tmp_path / "made" / "out.parquet"
    assert not out.exists()
    tally = convert([file], Options(out, skip_bad=True))
    assert tally.bad == 1 and tally.lines[0].startswith("shard.parquet row 1: ")
    assert [row["extra_info"]["index"] for row in _rows(out)] == [0, 2]


def _extra(objects: Any) -> dict[str, Any]:
    return {"extra_info": {"detected_objects": objects}}


UNFORESEEN: dict[str, tuple[Callable[[Path], Path], dict[str, Any], str]] = {
    "no question": (published.chartqapro, {"Question": [], "Answer": []}, "Question is an empty list"),
    "words for numbers": (
        published.refocus,
        {"focus_areas_bbox": [dict.fromkeys(("x1", "y1", "x2", "y2"), "ten")]},
        "focus_areas_bbox is not as it is published",
    ),
    "a list of points": (
        published.codedance_rl,
        _extra({"label": "a", "point": [1.0, 2.0]}),
        "extra_info.detected_objects is not as it is published",
    ),
    "an empty x": (
        published.codedance_rl,
        _extra({"label": "a", "point": {"x": [None], "y": [2.0]}}),
        "extra_info.detected_objects is not as it is published",
    ),
    "an empty point": (published.pixmocount, {"points": {"x": [None], "y": [2.0]}}, "points is not as it is published"),
    "no message": (published.deepeyes, {"prompt": [None]}, "prompt is not as it is published"),
}


@pytest.mark.parametrize("name", UNFORESEEN)
def test_a_form_that_nobody_foresaw_is_a_bad_row(name: str, tmp_path: Path) -> None:
    make, changes, fault = UNFORESEEN[name]
    file = make(tmp_path)
    row = pq.read_table(file).to_pylist()[0]
    form = find_form(file, list(CONVERTERS.values()))[1]
    assert form.record(row)
    with pytest.raises(BadRow, match=fault):
        form.record({**row, **changes})


def test_a_bad_row_of_unforeseen_form_can_be_skipped(tmp_path: Path) -> None:
    good = pq.read_table(published.chartqapro(tmp_path)).to_pylist()[0]
    file = tmp_path / "pro.parquet"
    pq.write_table(pa.Table.from_pylist([good, {**good, "Question": [], "Answer": []}]), file)
    with pytest.raises(UserError, match=r"pro\.parquet row 1: Question is an empty list; fix or drop the row"):
        _converted(file, tmp_path)
    assert len(_rows(_converted(file, tmp_path, skip_bad=True))) == 1


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"query": 5}, "query is int64, not text"),
        ({"answer": {"a": 1}}, "answer is struct<a: int64>, not text or number"),
        ({"source": ["a", 1]}, "source is of mixed types, not text"),
    ],
)
def test_json_of_another_type_far_behind_is_a_bad_row(change: dict[str, Any], fault: str, tmp_path: Path) -> None:
    file = published.refocus_raw(tmp_path)
    line = file.read_text()
    file.write_text(line * 101 + json.dumps(json.loads(line) | change) + "\n" + line)
    with pytest.raises(UserError, match=rf"train\.jsonl row 101: {fault}"):
        _converted(file, tmp_path)
    assert len(_rows(_converted(file, tmp_path, skip_bad=True))) == 102


def test_text_that_is_no_unicode_costs_its_row_alone(tmp_path: Path) -> None:
    row = {"problem": "How?", "answer": "4", "image": published.png()}
    schema = {"problem": pa.binary(), "answer": pa.string(), "image": pa.binary()}
    table = pa.Table.from_pylist([row, {**row, "problem": b"\xff\xfe"}, row], schema=pa.schema(schema))
    column = pa.Array.from_buffers(pa.string(), 3, table["problem"].chunk(0).buffers())
    file = tmp_path / "t.parquet"
    pq.write_table(table.set_column(0, "problem", column), file)
    with pytest.raises(UserError, match=r"t\.parquet row 1: a value of it cannot be read"):
        _converted(file, tmp_path)
    assert len(_rows(_converted(file, tmp_path, skip_bad=True))) == 2


@pytest.mark.parametrize(
    ("line", "fault"),
    [("{", "the line is no JSON"), ("[1]", "no JSON object"), ("{}", "id is missing"), ("\ufeff", "no JSON")],
)
def test_a_broken_line_of_json_costs_its_row_alone(line: str, fault: str, tmp_path: Path) -> None:
    file = published.refocus_raw(tmp_path)
    file.write_text(file.read_text() + line + "\n" + file.read_text())
    with pytest.raises(UserError, match=rf"train\.jsonl row 1: .*{fault}"):
        _converted(file, tmp_path)
    assert len(_rows(_converted(file, tmp_path, skip_bad=True))) == 2


def test_a_second_conversion_to_an_output_leaves_the_files_of_the_first_alone(tmp_path: Path) -> None:
    file, out = published.pixmocount(tmp_path), tmp_path / "made" / "out.parquet"
    out.parent.mkdir()
    with (
        exclusive_lock(out.parent / ".out.parquet.lock", "busy"),
        pytest.raises(UserError, match="another process is making it"),
    ):
        convert([file], Options(out), image_folder=tmp_path / "downloads")
    assert [path.name for path in out.parent.iterdir()] == [".out.parquet.lock"]


@pytest.mark.parametrize("absolute", [True, False])
def test_images_are_not_copied_from_anywhere(absolute: bool, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    file, elsewhere = published.refocus_raw(tmp_path / "set"), tmp_path / "private"
    elsewhere.mkdir()
    (elsewhere / "p.png").write_bytes(published.png(5))
    path = str(elsewhere / "p.png") if absolute else "../private/p.png"
    row = json.loads(file.read_text())
    file.write_text(json.dumps({**row, "conversations": [{"images": [path]}]}) + "\n")
    out = tmp_path / "out.parquet"
    with pytest.raises(
        UserError, match=r"images\[0\] names .*p\.png, which is outside the folder of the file; .*--any"
    ):
        convert([file], Options(out))
    assert not list(tmp_path.glob("images/**/*.png"))
    ways: list[dict[str, Any]] = [{"any_path": True}, {"image_folder": elsewhere}]
    for allowed in ways:
        convert([file], Options(out), **allowed)
        assert read_records(out).records[0].images == (published.png(5),)


def test_a_link_in_front_of_dots_does_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "private" / "deep").mkdir(parents=True)
    file = published.refocus_raw(tmp_path / "set")
    (tmp_path / "private" / "p.png").write_bytes(published.png(5))
    (tmp_path / "set" / "link").symlink_to(tmp_path / "private" / "deep")
    row = json.loads(file.read_text())
    file.write_text(json.dumps({**row, "conversations": [{"images": ["link/../p.png"]}]}) + "\n")
    with pytest.raises(UserError, match="cannot be read"):
        convert([file], Options(tmp_path / "out.parquet"))


@pytest.mark.parametrize(
    "text",
    ["x" + " " * 200_000 + "y", "x" + "\n" * 200_000 + "y", "Question:" * 20_000],
    ids=["blanks", "lines", "heads"],
)
def test_hostile_questions_take_no_time(text: str) -> None:
    started = time.process_time()
    assert question_in(text) == text.strip()
    assert time.process_time() - started < 1


def test_a_line_that_is_too_long_costs_its_row_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = published.refocus_raw(tmp_path)
    line = file.read_text()
    file.write_text(line + " " * 5_000 + line + line)
    monkeypatch.setattr(json_lines, "MOST_LINE_BYTES", 2_000)
    with pytest.raises(UserError, match=r"train\.jsonl row 1: the line has more than"):
        _converted(file, tmp_path)
    assert len(_rows(_converted(file, tmp_path, skip_bad=True))) == 2


def _rewritten(file: Path, *, drop: str = "", **columns: Any) -> Path:
    """A copy of a file with further columns, of the same value in each row, or without one."""
    rows = [{**row, **columns} for row in pq.read_table(file).to_pylist()]
    for row in rows:
        row.pop(drop, None)
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file


@pytest.mark.parametrize(
    ("make", "drop", "columns", "words"),
    [
        (published.codedance_sft, "images", {}, "it has no column images"),
        (
            published.codedance_sft,
            "",
            {"images": ["a.png", "b.png"]},
            r"column images is list<\w+: string>, not list of bytes",
        ),
        (published.codedance_sft, "", {"reward_model": {"style": "rule"}}, "it has a column reward_model"),
        (published.codedance_rl_prompt, "", {"source": "h_bar"}, "it has a column source, .*--from"),
        (published.codedance_rl_prompt, "", {"record_id": "x"}, "it has a column record_id, .*--from"),
        (published.codedance_rl_prompt, "", {"extra_info": {"record_id": "x"}}, r"a column extra_info\.record_id, "),
    ],
)
def test_a_file_of_another_set_is_not_taken_for_one_of_codedance(
    make: Callable[[Path], Path], drop: str, columns: dict[str, Any], words: str, tmp_path: Path
) -> None:
    file = make(tmp_path)
    converter, form = find_form(file, list(CONVERTERS.values()))
    assert converter.name.startswith("codedance")
    other = _rewritten(file, drop=drop, **columns)
    with pytest.raises(UserError, match="is in no known layout"):
        find_form(other, list(CONVERTERS.values()))
    (wrong,) = differences(schema_of(other), form, named=False)
    assert re.search(words, wrong)


def test_a_set_that_is_named_may_have_columns_of_others(tmp_path: Path) -> None:
    file = _rewritten(published.codedance_rl_prompt(tmp_path), source="h_bar", env_name="x")
    assert find_form(file, [CONVERTERS["codedance-rl"]])[0].name == "codedance-rl"


@pytest.mark.parametrize("make", [published.pixmocount, published.mmk12, published.chartqapro])
def test_a_set_with_a_benchmark_in_it_warns(
    make: Callable[[Path], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _converted(make(tmp_path), tmp_path)
    assert "what is trained on it cannot be evaluated on it" in capsys.readouterr().err


@pytest.mark.parametrize("first", [{"query": None}, {"answer": 12}, {"conversations": None}])
def test_json_with_nulls_or_several_types_in_its_first_rows_is_of_its_layout(
    first: dict[str, Any], tmp_path: Path
) -> None:
    file = published.refocus_raw(tmp_path)
    line = file.read_text()
    head = json.dumps(json.loads(line) | first) + "\n"
    file.write_text(head * 120 + line if None in first.values() else head + line)
    out = _converted(file, tmp_path, skip_bad=True)
    assert _rows(out)[-1]["reward_model"]["ground_truth"] == "12"
    assert len(_rows(out)) == (1 if None in first.values() else 2)
