"""Overrides that people try: each ends the dry run with one line that says what to write, or is understood."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from codedance_verl import train
from tests.unit.preflight.folders import make_model, row, write

CASES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "data" / "cases" / "config" / "index.json").read_text()
)["cases"]
OF_THE_FILES = {"config-13", "config-24"}
"""They are about columns of data files, which the tests of the loader hold."""

FAST = {"config-06", "config-15", "config-18", "config-21", "config-23", "own-27", "own-44"}
IN_A_PROCESS = {"config-01", "config-19", "config-23"}


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command line of a dry run in which nothing is wrong."""
    folder = tmp_path_factory.mktemp("cases")
    data = write(folder / "data.parquet", [row(index) for index in range(32)])
    return [
        "recipe=cpu_demo",
        "hardware=cpu",
        "sandbox=process",
        "dry_run=true",
        f"run_dir={folder / 'run'}",
        f"data.train_files={data}",
        f"data.val_files={data}",
        f"actor_rollout_ref.model.path={make_model(folder / 'model')}",
    ]


def _parameters(chosen: set[str] | None = None) -> list[Any]:
    cases = [case for case in CASES if case["id"] not in OF_THE_FILES]
    return [
        pytest.param(case, id=case["id"], marks=[pytest.mark.slow] * (chosen is not None or case["id"] not in FAST))
        for case in cases
        if chosen is None or case["id"] in chosen
    ]


@pytest.mark.parametrize("case", _parameters())
def test_an_override_is_understood_or_told_in_one_line(
    case: dict[str, Any],
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    code = train.main("train", [*arguments, *case["input"]])
    _assert_as_expected(case, code, capsys.readouterr().err)


@pytest.mark.timeout(240)  # a bound for what hangs: an import of verl takes seconds, more on a machine that is busy
@pytest.mark.parametrize("case", _parameters(IN_A_PROCESS))
def test_the_command_does_the_same(case: dict[str, Any], arguments: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "codedance_verl.train", *arguments, *case["input"]]
    ran = subprocess.run(
        command, env={**os.environ, "HOME": str(tmp_path)}, capture_output=True, text=True, timeout=200, check=False
    )
    _assert_as_expected(case, ran.returncode, ran.stderr)


def _assert_as_expected(case: dict[str, Any], code: int, told: str) -> None:
    errors = [line for line in told.splitlines() if line.startswith("error: ")]
    assert code == case["exit"], told
    assert "Traceback" not in told
    assert len(errors) == (1 if case["exit"] else 0), errors
    for text in case["says"]:
        assert text in errors[0], (text, errors[0])


def test_the_home_folder_is_where_the_run_goes(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert train.main("train", [*arguments, "run_dir=~/runs/a"]) == 0
    assert (tmp_path / "runs" / "a" / "dry_run" / "config.yaml").is_file()
