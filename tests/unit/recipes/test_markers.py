from __future__ import annotations

from pathlib import Path

import pytest

from recipes.cpu_demo.markers import Attempt, Marker, StageRecords, fingerprint


def test_a_fingerprint_sees_contents_names_and_the_command(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "a").write_text("1")

    def current(command: tuple[str, ...] = ("run",)) -> str:
        return fingerprint(command, [folder, tmp_path / "absent"])

    seen = [current(), current(("run", "x"))]
    (folder / "a").write_text("2")
    seen.append(current())
    (folder / "a").rename(folder / "b")
    seen.append(current())
    (tmp_path / "absent").write_text("")
    seen.append(current())
    assert len(set(seen)) == 5
    assert current() == seen[-1]


def test_a_running_try_hides_the_marker_of_an_earlier_run(tmp_path: Path) -> None:
    records = StageRecords(tmp_path)
    records.finish(Marker("sft", 12.5, "abc"))
    assert records.marker("sft") == Marker("sft", 12.5, "abc")
    records.note("sft", Attempt("abd", 3.0, 77, 1.5))
    assert records.marker("sft") is None and records.attempt("sft") == Attempt("abd", 3.0, 77, 1.5)
    records.finish(Marker("sft", 4.0, "abd"))
    assert records.attempt("sft") is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"name": "sft"}', '{"name": 1, "wall_s": "x", "inputs": 2}'])
def test_a_broken_marker_counts_as_none(tmp_path: Path, content: str) -> None:
    records = StageRecords(tmp_path)
    records.folder.mkdir()
    (records.folder / "sft.json").write_text(content)
    (records.folder / "sft.attempt.json").write_text(content)
    assert records.marker("sft") is None and records.attempt("sft") is None
