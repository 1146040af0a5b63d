"""The whole command on small files: joint and single cases, rows, page, errors."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from benchmarks.audit_images import charts, cropped, encoded, photographs, reencoded
from codedance_verl.audit.build import findings
from codedance_verl.audit.cli import data_app
from codedance_verl.audit.comparison import compare, read_evaluation
from codedance_verl.audit.evaluation_items import Against, _of_item
from codedance_verl.audit.findings import QuestionMatch
from codedance_verl.audit.page import render
from codedance_verl.audit.question_match import Likeness
from codedance_verl.cli import main
from codedance_verl.data.fields import Message
from codedance_verl.data.schema import Record, write_records
from codedance_verl.errors import UserError
from codedance_verl.tasks.item import Item

QUESTION = "In which year is the share of respondents <b>largest</b> & why?"
PHOTOGRAPHS, CHARTS = photographs(4, 3), charts(3, 3)


def record(data: bytes, question: str, answer: str, index: int) -> Record:
    return Record("source", (Message("user", f"<image>{question}"),), (data,), "", answer, {"index": index})


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    draws = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("training") / "train.parquet"
    crop = cropped(CHARTS[0], draws)
    records = [
        record(encoded(PHOTOGRAPHS[3]), "What is shown?", "a moon", 0),
        record(crop, QUESTION.lower(), "2012", 1),
        record(reencoded(PHOTOGRAPHS[0], draws), "What is to the left of the house with the blue door?", "tree", 2),
        record(crop, "Which bar is the lowest one?", "the last", 3),
        record(encoded(CHARTS[2]), "How tall is the third bar of this chart in all?", "about half", 4),
        record(b"no image", "What is shown?", "x", 5),
    ]
    write_records(path, records)
    return path


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("evaluation") / "test.parquet"
    records = [
        record(encoded(CHARTS[0], 95), QUESTION, "2012", 0),
        record(encoded(PHOTOGRAPHS[0], 95), "How many windows does it have?", "4", 1),
        record(encoded(PHOTOGRAPHS[1], 95), "How tall is the third bar of this chart in all", "4", 2),
        record(encoded(CHARTS[1], 95), "Which colour has the line at the top?", "blue", 3),
    ]
    write_records(path, records)
    return path


def test_joint_and_single_cases_are_apart(training: Path, evaluation: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    PHOTOGRAPHS[0].save(images / "there.png")
    PHOTOGRAPHS[2].save(images / "not there.png")
    sets = ["--against", f"ours={evaluation}", "--against", f"folder={images}"]
    result = CliRunner().invoke(data_app, ["audit", str(training), *sets, "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "ours: of 4 items 1 with image and question in the training set, 1 with the image alone" in result.output
    found = json.loads((tmp_path / "out" / "audit.json").read_text())
    ours, folder = found["sets"]
    assert (ours["joint"], ours["image_only"], ours["question_only"]) == (1, 1, 1)
    assert (ours["records_joint"], ours["records_image"]) == (1, 2)
    assert (folder["items"], folder["joint"], folder["image_only"]) == (2, 0, 1)
    assert found["rows_joint"] == {str(training): [1]} and found["rows_image"] == {str(training): [2, 3]}
    joint = found["image_pairs"][0]
    assert joint["joint"] and joint["likeness"] == "equal"
    assert joint["records"] == ["train.parquet row 1", "train.parquet row 3"] and joint["items"] == ["0"]
    (match,) = found["question_matches"]
    assert match["item"] == "2" and match["records"] == ["train.parquet row 4"]
    assert found["training"]["records"] == 6 and found["training"]["unreadable_images"] == 1
    assert "row 5" in found["training"]["faults"][0]
    page = (tmp_path / "out" / "audit.html").read_text()
    assert "<b>largest" not in page and "&lt;b&gt;largest" in page
    assert page.count("data:image/jpeg;base64,") == 2 * len(found["image_pairs"])
    assert "turned, mirrored" in page and "http:" not in page and "https:" not in page and "<script" not in page


def test_the_page_is_bounded(training: Path, evaluation: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = compare([training], [Against("ours", evaluation)])
    found = findings(compared, [training])
    monkeypatch.setattr("codedance_verl.audit.page.MOST_PAIRS", 1)
    page = render(found, compared)
    assert page.count("<article") == 1 and "1 more pairs are in audit.json" in page


def test_nothing_in_common_is_said(evaluation: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.parquet"
    write_records(path, [record(encoded(PHOTOGRAPHS[3]), "Is the sky clear tonight?", "yes", 0)])
    compared = compare([path], [Against("ours", evaluation)])
    found = findings(compared, [path])
    assert not found.image_pairs and not found.question_matches and not found.rows_joint
    assert "No image of the evaluation sets was found." in render(found, compared)


def test_a_benchmark_is_read_by_its_task(training: Path, tmp_path: Path) -> None:
    from codedance_verl.tasks.registry import task_of

    folder = tmp_path / "countbench"
    folder.mkdir()
    row = {"image": {"bytes": encoded(PHOTOGRAPHS[0], 95), "path": None}, "text": "a photo", "number": 4}
    row |= {"question": "How many windows are there in the image?"}
    pq.write_table(pa.Table.from_pylist([row]), folder / "test-00000-of-00001.parquet")
    (item,) = task_of("countbench").items(folder)
    assert not item.fault
    (figures,) = findings(compare([training], [Against("countbench", folder)]), [training]).sets
    assert (figures.items, figures.image_only) == (1, 1)


def test_what_could_not_be_read_is_said_first(evaluation: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    PHOTOGRAPHS[2].save(images / "good.png")
    for name in ("a", "b"):
        (images / f"{name}.png").write_bytes(b"no image")
    command = ["audit", str(evaluation), "--against", f"folder={images}", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(data_app, command)
    assert result.exit_code == 0, result.output
    assert "folder: 2 of its images could not be read and were not compared, such as a.png" in result.output
    page = (tmp_path / "out" / "audit.html").read_text()
    head, table = page.split("<h2>Evaluation items", 1)
    assert "2 images of folder could not be read and were not compared: a.png" in head and "b.png" in head
    assert "<th>not readable</th>" in table and '<td class="bad">2</td>' in table
    (figures,) = json.loads((tmp_path / "out" / "audit.json").read_text())["sets"]
    assert figures["unreadable"] == 2 and len(figures["faults"]) == 2


def test_an_item_that_cannot_be_asked_counts_as_not_compared() -> None:
    item = Item("7", "How many?", (), "4", fault="test.parquet row 7: it has no image")
    found = _of_item("countbench", item)
    assert found.faults == ("7: test.parquet row 7: it has no image",)


def test_half_a_surrogate_pair_does_not_end_an_audit(evaluation: Path, tmp_path: Path) -> None:
    image = encoded(PHOTOGRAPHS[0])
    messages = [{"role": "user", "content": "<image>How many?"}]
    rows = [
        {"data_source": "x", "prompt": messages, "images": [image], "reward_model": reward, "extra_info": extra}
        for reward, extra in (
            ('{"ground_truth": "4"}', "{}"),
            ('{"ground_truth": "\\ud83d"}', "{}"),
            ('{"ground_truth": "4"}', '{"question": "How \\ud83d many?"}'),
        )
    ]
    file = tmp_path / "train.parquet"
    pq.write_table(pa.Table.from_pylist(rows), file)
    command = ["audit", str(file), "--against", f"ours={evaluation}", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(data_app, command)
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert found["training"]["bad_rows"] == 2
    assert "row 1: reward_model.ground_truth holds half of a surrogate pair" in found["training"]["faults"][0]
    assert "row 2: extra_info.question holds half of a surrogate pair" in found["training"]["faults"][1]


def test_half_a_surrogate_pair_of_a_benchmark_is_written_as_its_code_point(training: Path, tmp_path: Path) -> None:
    found = findings(compare([training], [Against("ours", training)]), [training])
    match = QuestionMatch("ours", "\ud83d", Likeness.EQUAL, "How \ud83d?", "How?", (), 0)
    replace(found, question_matches=(match,)).write(tmp_path / "audit.json")
    (written,) = json.loads((tmp_path / "audit.json").read_text())["question_matches"]
    assert (written["item"], written["evaluation_question"]) == ("⟨U+D83D⟩", "How ⟨U+D83D⟩?")


@pytest.mark.parametrize("name", ["countbench", "other"])
def test_a_set_that_is_missing_ends_it_before_any_is_read(name: str, evaluation: Path, tmp_path: Path) -> None:
    with (
        ThreadPoolExecutor(1) as executor,
        patch("codedance_verl.audit.image_store.ImageStore.add", side_effect=AssertionError("an image was read")),
        pytest.raises(UserError, match=f"--against {name}=.*none: there is no such file or folder"),
    ):
        read_evaluation([Against("ours", evaluation), Against(name, tmp_path / "none")], executor)


@pytest.mark.parametrize("against", ["nothing", "=x", "ours="])
def test_a_set_needs_name_and_path(against: str) -> None:
    with pytest.raises(UserError, match="must be NAME=PATH"):
        Against.parse(against)


def test_errors_are_one_line(training: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["data", "audit", str(training), "--out", str(tmp_path / "out"), "--against"]
    for against, words in (
        (f"x={tmp_path / 'none'}", "there is no such file or folder"),
        (f"x={tmp_path}", "holds no images, and x is no benchmark"),
    ):
        with pytest.raises(SystemExit):
            main([*command, against])
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("error: ") and words in error
    with pytest.raises(SystemExit):
        main([*command, f"x={training}", "--recipe", "cpu_demo"])
    assert "--recipe and --model go together" in capsys.readouterr().err
