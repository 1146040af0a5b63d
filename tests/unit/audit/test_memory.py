"""Bounds of what an audit holds: images of records that refer to files, and small forms of candidates."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codedance_verl.audit import comparison, training_records
from codedance_verl.audit.image_store import Small, SmallImages
from codedance_verl.audit.training_records import record_batches


def _references(folder: Path, count: int, size: int) -> Path:
    """Records that refer to files of `size` bytes."""
    rows = []
    for index in range(count):
        (folder / f"{index}.png").write_bytes(b"x" * size)
        messages = [{"role": "user", "content": f"<image>Question {index}?"}]
        rows.append({"data_source": "x", "prompt": messages, "images": [f"{index}.png"]})
    for row in rows:
        row["reward_model"] = {"ground_truth": "4"}
    pq.write_table(pa.Table.from_pylist(rows), folder / "r.parquet")
    return folder / "r.parquet"


def test_a_batch_ends_where_its_images_are_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_records, "IMAGE_BYTES", 1_000)
    found = list(record_batches([_references(tmp_path, 11, 300)]))
    assert [len(batch) for batch in found] == [4, 4, 3]
    assert [record.row for batch in found for record in batch] == list(range(11))


def test_questions_are_read_without_their_images(tmp_path: Path) -> None:
    file = _references(tmp_path, 3, 10)
    for image in tmp_path.glob("*.png"):
        image.unlink()
    (batch,) = record_batches([file], with_images=False)
    assert [(record.question, record.faults) for record in batch] == [(f"Question {k}?", ()) for k in range(3)]


def test_few_small_forms_are_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "_MOST_FORMS", 4)
    small = SmallImages()
    for number in range(10):
        small[number] = Small(bytes([number]), (1, 1))
    candidates = {7: list(range(10)), 8: [1], 9: [2, 3]}
    windows = list(comparison._windows(dict.fromkeys(candidates, b"x"), candidates, small))
    assert [sum(len(near) for _, _, near in window) for window in windows] == [4, 4, 4, 1]
    pairs = [(number, other) for window in windows for number, _, near in window for other in near]
    assert pairs == [(number, other) for number, near in candidates.items() for other in near]
    assert all(
        form.jpeg == bytes([other]) for window in windows for _, _, near in window for other, form in near.items()
    )
