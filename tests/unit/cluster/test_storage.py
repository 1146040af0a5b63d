from __future__ import annotations

from pathlib import Path

from codedance_verl.cluster.storage import missing


def _probe(folder: Path, text: str | None = None) -> str:
    probe = folder / ".cluster-probe-1"
    probe.write_text(probe.name if text is None else text)
    return str(probe)


def test_a_node_that_sees_everything_lacks_nothing(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    data = model / "train.parquet"
    data.write_bytes(b"12345")
    assert missing(_probe(tmp_path), "id", {"data.train_files[0]": (str(data), 5), "model": (str(model), 5)}) == ""


def test_a_folder_of_the_same_name_is_not_the_same_folder(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert missing(str(elsewhere / ".cluster-probe-1"), "id", {}).startswith(f"run_dir={elsewhere}: ")
    assert missing(_probe(tmp_path, "of another run"), "id", {}).startswith(f"run_dir={tmp_path}: ")


def test_data_that_is_missing_or_another_is_named_by_its_key(tmp_path: Path) -> None:
    data = tmp_path / "train.parquet"
    data.write_bytes(b"123")
    for name, size in ((data, 5), (tmp_path / "none.parquet", 3)):
        found = missing(_probe(tmp_path), "id", {"data.train_files[0]": (str(name), size)})
        assert found == f"data.train_files[0]={name}: not there as the driver sees it"
