"""Data by the name of a dataset on the hub, read from its cache."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub.utils import filter_repo_objects

from codedance_verl.errors import UserError
from codedance_verl.tasks.countbench import COUNTBENCH
from codedance_verl.tasks.hub import folder_of, hub_patterns
from codedance_verl.tasks.registry import task_of
from tests.unit.tasks.files import parquet, struct


def test_a_folder_is_itself(tmp_path: Path) -> None:
    assert folder_of(COUNTBENCH, str(tmp_path)) == tmp_path


@pytest.mark.parametrize("source", ["none/such/folder", "/none", "a b/c", "none"])
def test_what_is_no_folder_and_no_name_ends_with_one_line(source: str) -> None:
    with pytest.raises(UserError, match=f"there is no folder {source}, and it is no name of a dataset on the hub"):
        folder_of(COUNTBENCH, source)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("countbench", "test.parquet"),
        ("pixmocount", "test-0.parquet"),
        ("hrbench_4k", "hr_bench_4k.parquet"),
        ("hrbench_8k", "hr_bench_8K.parquet"),
        ("chartqa", "test-0.parquet"),
        ("charxiv", "val.parquet"),
        ("mathverse", "testmini-0.parquet"),
        ("wemath", "testmini-0.parquet"),
    ],
)
def test_files_are_fetched_from_the_root_of_a_dataset_and_from_its_folders(name: str, file: str) -> None:
    stored = [file, f"data/{file}", f"other_{file}.md", "README.md"]
    assert list(filter_repo_objects(stored, allow_patterns=hub_patterns(task_of(name)))) == stored[:2]


_PROGRAM = """
import sys
from codedance_verl.errors import UserError
from codedance_verl.tasks.hub import folder_of
from codedance_verl.tasks.registry import task_of
task = task_of("countbench")
for source in sys.argv[1:]:
    try:
        print(len(list(task.items(folder_of(task, source)))))
    except UserError as error:
        print(error)
"""


def test_a_cached_dataset_is_read_by_its_name(tmp_path: Path) -> None:
    """In a process whose hub is its cache alone."""
    commit = "76d6003a" * 5
    folder = tmp_path / "datasets--vikhyatk--CountBenchQA"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text(commit)
    rows = [{"image": struct(n), "question": "How many?", "number": 2} for n in range(3)]
    parquet(folder / f"snapshots/{commit}/data/test-0.parquet", rows)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path)}
    command = [sys.executable, "-c", _PROGRAM, "vikhyatk/CountBenchQA", "vikhyatk/Other"]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()
    assert found[0] == "3"
    assert found[1].startswith("there is no folder vikhyatk/Other, and the hub does not give that dataset: ")
    assert len(found) == 2
