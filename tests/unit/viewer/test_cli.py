from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.sample_run import write_run
from codedance_verl import cli
from codedance_verl.viewer import export
from tests.unit.viewer.hostile import write_hostile_run


def view(*arguments: str | Path) -> None:
    """As typed, ended well."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["view", *map(str, arguments)])
    assert ended.value.code == 0


def test_an_export_holds_what_was_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, target = write_run(tmp_path / "run", steps=2, groups=2), tmp_path / "out.html"
    view(run, "--cache", tmp_path / "cache", "--export", target, "--where", "step=2", "--where", "split=train")
    html = target.read_text()
    assert html.count('class="exported"') == 8 and "step 1," not in html
    assert capsys.readouterr().out.startswith(f"wrote {target}")


def test_an_export_is_bounded(tmp_path: Path) -> None:
    run, target = write_run(tmp_path / "run", steps=2, groups=2), tmp_path / "out.html"
    view(run, "--cache", tmp_path / "cache", "--export", target, "--most", "3")
    html = target.read_text()
    assert html.count('class="exported"') == 3 and "3 of 16 trajectories" in html


def test_pictures_beyond_the_bound_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "PICTURE_BYTES", 1000)
    run, target = write_run(tmp_path / "run", steps=1, groups=2), tmp_path / "out.html"
    view(run, "--cache", tmp_path / "cache", "--export", target)
    assert "picture left out" in target.read_text()


def test_a_hostile_run_is_exported_inert(tmp_path: Path) -> None:
    run, target = write_hostile_run(tmp_path / "run"), tmp_path / "out.html"
    view(run, "--cache", tmp_path / "cache", "--export", target)
    html = target.read_text()
    assert "<script" not in html and "<svg" not in html and "<img src=x" not in html
    assert html.count("<img ") < 20 and len(html) < 2_000_000


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--where", "colour=red"], "--where colour: unknown field; known are"),
        (["--where", "batch=g"], "--where batch: is called group now"),
        (["--where", "outcome"], "--where outcome: must be FIELD=VALUE"),
        (["--where", "step=999"], "matches --where step=999"),
        (["--where", "step=x"], "step=x: must be a whole number"),
        (["--export", "/nonexistent/out.html"], "/nonexistent/out.html: cannot be written"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    run = write_run(tmp_path / "run", steps=1, groups=1)
    with pytest.raises(SystemExit) as ended:
        cli.main(["view", str(run), "--cache", str(tmp_path / "c"), "--export", str(tmp_path / "out.html"), *arguments])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and complaint in error and error.count("\n") == 1


def test_a_folder_without_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["view", str(tmp_path)])
    assert ended.value.code == 2 and "holds no trajectories" in capsys.readouterr().err


def test_several_runs_cannot_be_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        write_run(tmp_path / "runs" / name, steps=1, groups=1)
    with pytest.raises(SystemExit):
        cli.main(["view", str(tmp_path / "runs"), "--cache", str(tmp_path / "c"), "--export", str(tmp_path / "x.html")])
    assert "--export takes one run; name the folder of one of these: a, b" in capsys.readouterr().err
