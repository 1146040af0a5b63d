from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from codedance_verl.cluster import storage
from codedance_verl.cluster.storage import check_shared, missing
from codedance_verl.sandbox.placement import RayNode


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


HEAD = RayNode("head", "10.0.0.1", {"memory": 1.0})
TRAINS = RayNode("trains", "10.0.0.2", {"CPU": 8.0, "GPU": 1.0})
INTERPRETERS = RayNode("interpreters", "10.0.0.3", {"sandbox": 1.0})


@pytest.mark.parametrize(
    ("nodes", "own", "asked"),
    [
        ([TRAINS], "trains", []),
        ([TRAINS, INTERPRETERS], "trains", []),
        ([HEAD, TRAINS, INTERPRETERS], "head", ["trains"]),
        ([RayNode("head", "10.0.0.1", {"CPU": 8.0}), TRAINS], "head", ["head", "trains"]),
    ],
    ids=["one", "and interpreters", "a head that runs the driver alone", "two"],
)
def test_every_node_that_may_run_something_is_asked_unless_the_driver_is_on_the_only_one(
    nodes: Sequence[RayNode], own: str, asked: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[str] = []
    monkeypatch.setattr(storage, "living_nodes", lambda: list(nodes))
    monkeypatch.setattr(storage.ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: own))
    monkeypatch.setattr(storage, "_ask", lambda nodes, *_: found.extend(node.node_id for node in nodes))
    check_shared(tmp_path, {})
    assert found == list(asked)
