"""Lengths of prompts against the budgets of a recipe, with a real processor."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from benchmarks.audit_images import encoded
from codedance_verl.audit.lengths import measure_lengths
from codedance_verl.data.fields import Message
from codedance_verl.data.schema import Record, write_records
from codedance_verl.errors import UserError
from tests.unit.preflight.folders import make_model


@pytest.fixture
def training(tmp_path: Path) -> Path:
    image = encoded(Image.new("RGB", (112, 112), "red"))
    questions = ["What is shown?", "word " * 4_000]
    records = [
        Record("source", (Message("user", f"<image>{question}"),), (image,), "", "x", {"index": index})
        for index, question in enumerate(questions)
    ]
    write_records(tmp_path / "train.parquet", records)
    return tmp_path / "train.parquet"


def test_prompts_above_the_budget_are_counted(training: Path, tmp_path: Path) -> None:
    found = measure_lengths([training], "cpu_demo", make_model(tmp_path / "model"))
    assert (found.recipe, found.limit, found.prompts, found.too_long, found.most_images) == ("cpu_demo", 128, 2, 1, 1)
    assert sum(found.tokens.counts) == 2 and found.tokens.counts[0] == 1 and found.tokens.edges[-1] > 4_000
    assert sum(found.image_tokens.counts) == 2 and found.image_tokens.edges[-1] > 1


def test_a_model_without_a_processor_is_refused(training: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="its processor cannot be loaded"):
        measure_lengths([training], "cpu_demo", tmp_path / "empty")


def test_demonstrations_are_no_prompts(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "That."}]
    pq.write_table(pa.Table.from_pylist([{"messages": messages}]), tmp_path / "sft.parquet")
    with pytest.raises(UserError, match=r"sft\.parquet holds no questions for RL"):
        measure_lengths([tmp_path / "sft.parquet"], "cpu_demo", make_model(tmp_path / "model"))
