from __future__ import annotations

import fcntl
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from codedance_verl.errors import UserError
from codedance_verl.evaluation.report import read_report
from codedance_verl.runtime.progress import clock
from recipes.cpu_demo import report as report_main
from recipes.cpu_demo import run
from recipes.cpu_demo.console import Console
from recipes.cpu_demo.environment import Backend, choose_backend, describe, read_environment, write_environment
from recipes.cpu_demo.markers import Marker, StageRecords
from tests.unit.evaluation.experiment import make_experiment


@pytest.fixture(autouse=True)
def _keep_signal_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_raise_on_signals", lambda: None)


def test_the_report_stage_reads_a_finished_demo(tmp_path: Path) -> None:
    make_experiment(tmp_path)
    records = StageRecords(tmp_path)
    for name, seconds in (("rl_seed0", 300.0), ("data", 20.0), ("unknown", 1.0)):
        records.finish(Marker(name, seconds, "x"))
    write_environment(tmp_path, describe(Backend("docker"), tmp_path, setup_s=60.0))
    assert report_main.main(["--out", str(tmp_path), "--seeds", "0,1"]) == 0
    report = read_report(tmp_path / "report.json")
    assert list(report.stages) == ["setup", "data", "rl_seed0", "report"]
    assert report.stages["setup"] == 60.0 and report.wall_s == pytest.approx(380, abs=10)
    assert "Model code ran in Docker containers." in report.notes
    assert report.passed["wall_time"].passed
    assert (tmp_path / "report.html").stat().st_size > 10_000
    assert list(report.discovery) == ["count_digits"], "the kind that sft.parquet never shows with code"
    assert report.all_passed


def test_the_summary_names_figures_misses_and_paths(tmp_path: Path) -> None:
    make_experiment(tmp_path)
    write_environment(tmp_path, describe(Backend("docker"), tmp_path, setup_s=9_999.0))
    report_main.main(["--out", str(tmp_path), "--seeds", "0,1"])
    stream = io.StringIO()
    report = read_report(tmp_path / "report.json")
    run._summarise(report, tmp_path, (0, 1), Console(stream))
    printed = stream.getvalue()
    assert "-> 100.0%" in printed and "tool rate, easy questions" in printed
    assert "look, images greyed out     100.0% -> 17.9% (chance 16.7%)" in printed
    assert "count_digits, first found   step 3, 3 (by seed; never demonstrated with code)" in printed
    assert "look / look_large pairs     100.0% -> 100.0%" in printed and "win 80.7%, lose 0.0%" in printed
    assert "NOT MET: the whole run takes less than 45 minutes" in printed
    assert str(tmp_path / "report.html") in printed and "rl_seed1/tensorboard" in printed
    start, first, last = report.tool_effect  # the last checkpoints of both seeds are averaged
    lost = replace(last.groups.hard, gain=replace(last.groups.hard.gain, value=None))
    half = replace(last.groups.hard, gain=replace(last.groups.hard.gain, value=0.007))
    for hard, said in ((half, "win 40.7%"), (lost, "win 80.7%")):
        changed = replace(last, groups=replace(last.groups, hard=hard))
        assert said in "\n".join(run._effects(replace(report, tool_effect=(start, last, first, changed))))


def test_a_report_of_an_unfinished_demo_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report_main.main(["--out", str(tmp_path), "--seeds", "0"]) == 2
    assert "environment.json: not readable" in capsys.readouterr().err


def test_a_second_demo_in_the_same_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (tmp_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert run.main(["--out", str(tmp_path), "--sandbox", "process"]) == 2
    assert "error: another demo runs in" in capsys.readouterr().err


@pytest.mark.parametrize(("model", "folder"), [("tiny", "demo"), ("tiny_qwen3", "demo_qwen3")])
def test_every_model_has_a_folder_of_its_own(
    model: str, folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "OUTPUTS", tmp_path)
    (tmp_path / folder).mkdir()
    with (tmp_path / folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert run.main(["--model", model, "--sandbox", "process"]) == 2
    assert f"another demo runs in {tmp_path / folder};" in capsys.readouterr().err


def test_fresh_empties_the_folder_of_a_demo_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    assert run.main(["--out", str(tmp_path), "--fresh"]) == 2
    assert "holds other things than a demo" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").exists()
    demo = tmp_path / "demo"
    (demo / "stages").mkdir(parents=True)
    (demo / "rl_seed0").mkdir()
    (demo / ".lock").touch()
    run._clear(demo)
    assert [entry.name for entry in demo.iterdir()] == [".lock"]


def test_an_output_folder_that_cannot_be_made_is_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert run.main(["--out", str(tmp_path / "file" / "demo")]) == 2
    assert "cannot be made (Not a directory); choose another folder" in capsys.readouterr().err


def test_bad_seeds_end_the_demo_before_it_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--out", str(tmp_path / "demo"), "--seeds", "0,0"]) == 2
    assert "error: --seeds 0,0" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


def test_without_an_engine_auto_falls_back_and_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    backend = choose_backend("auto")
    assert backend.name == "process" and "no Docker engine answers" in (backend.missing or "")
    with pytest.raises(UserError, match="no Docker engine answers"):
        choose_backend("docker")
    stream = io.StringIO()
    run.prepare(tmp_path, backend, 0.0, Console(stream))
    assert "NOTICE: no containers." in stream.getvalue() and "no Docker engine answers" in stream.getvalue()
    assert "no security boundary" in read_environment(tmp_path).notes[1]


def test_the_longest_set_up_counts(tmp_path: Path) -> None:
    for seconds in (300.0, 0.0, 2.0):
        run.prepare(tmp_path, Backend("docker"), seconds, Console(io.StringIO()))
    assert read_environment(tmp_path).setup_s == 300.0


def test_a_broken_environment_file_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "environment.json").write_text(json.dumps({"backend": "docker"}))
    with pytest.raises(UserError, match=r"environment.json: not readable"):
        read_environment(tmp_path)


def test_clock() -> None:
    assert [clock(seconds) for seconds in (0, 59.6, 61, 3_725)] == ["0:00", "1:00", "1:01", "1:02:05"]
