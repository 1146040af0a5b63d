from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import pandas as pd

from codedance_verl.grading.rules.alternatives import encode_alternatives
from codedance_verl.harness.export import DATASETS, FAILED, table, table_path, write_table
from codedance_verl.tasks.registry import TASKS
from tests.unit.harness.made_up import failed, items, measured, reply


def test_a_table_is_read_back_by_what_vlmevalkit_reads_it_with(tmp_path: Path) -> None:
    asked = items(6)
    nasty = 'tab\there "quoted"\r\nnew line\x00 and \rmore'
    answers = [measured(asked[0], 1.0, reply(nasty)), measured(asked[1], 0.0, reply("")), failed(asked[2])]
    answers += [measured(asked[3], 0.0, reply("None")), measured(asked[4], 1.0, reply("A"), sample=1)]
    write_table(tmp_path / "new" / "table.tsv", answers)
    found = pd.read_csv(tmp_path / "new" / "table.tsv", sep="\t")
    assert list(found.columns) == ["index", "question", "A", "B", "answer", "category", "prediction"]
    assert list(found["index"]) == [0, 1, 2, 3]  # the first reply to each item alone
    assert found["prediction"][0] == 'tab\there "quoted"\nnew line and \nmore'
    assert [str(value).strip() for value in found["prediction"][1:]] == ["", FAILED, "None"]
    assert set(found["answer"]) == {"A"}


def test_options_and_answers_of_different_items_keep_their_columns() -> None:
    first, second = items(2)
    first = replace(first, choices=("x", "y", "z"))
    second = replace(second, choices=(), truth=encode_alternatives(["5", "five"]), strata={})
    rows = list(csv.DictReader(io.StringIO(table([measured(first, 1.0), measured(second, 1.0)])), delimiter="\t"))
    assert [rows[0][letter] for letter in "ABC"] == ["x", "y", "z"]
    assert [rows[1][name] for name in ("A", "C", "answer", "category")] == ["", "", "5", ""]
    assert table([]) == "index\tquestion\tanswer\tprediction\n"


def test_files_are_named_as_vlmevalkit_looks_for_them(tmp_path: Path) -> None:
    assert table_path(tmp_path, "org/model 7b", "hrbench_4k") == tmp_path / "org_model_7b_HRBench4K.tsv"
    assert table_path(tmp_path, "../..", "vstar") == tmp_path / "model_VStarBench.tsv"
    assert table_path(tmp_path, "m", "pixmocount") is None
    assert DATASETS.keys() <= TASKS.keys()
