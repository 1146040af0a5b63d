from __future__ import annotations

import errno
import functools
import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from codedance_verl.errors import UserError
from codedance_verl.runtime.locks import run_lock
from codedance_verl.runtime.run_folder import new_metrics_file, publish_model


def test_each_start_has_a_metrics_file_of_its_own(tmp_path: Path) -> None:
    found = []
    for _ in range(3):
        found.append(new_metrics_file(tmp_path))
        found[-1].touch()
    found[0].unlink()
    assert [path.name for path in found] == ["0000.jsonl", "0001.jsonl", "0002.jsonl"]
    assert new_metrics_file(tmp_path).name == "0003.jsonl", "that of a later start is kept"


def test_a_disk_without_room_for_the_model_is_told_and_the_old_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    source = tmp_path / "checkpoints" / "global_step_2" / "huggingface"
    source.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (source / name).touch()
    (tmp_path / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("2")
    (tmp_path / "model").mkdir()
    monkeypatch.setattr(shutil, "copytree", functools.partial(shutil.copytree, copy_function=full))
    told = rf"^{tmp_path}/model: cannot be made of {source} \([^\n']*No space left on device\); free some space"
    with pytest.raises(UserError, match=told):
        publish_model(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "model"]


def test_a_second_run_is_kept_out_until_the_first_has_ended(tmp_path: Path) -> None:
    told = pytest.raises(UserError, match=rf"^run_dir={tmp_path}: another run is in progress there; wait for its end, ")
    with run_lock(tmp_path), told, run_lock(tmp_path):
        pass
    with run_lock(tmp_path):
        pass


HOLDS_AND_FORKS = """
import os, sys, time
from pathlib import Path
from codedance_verl.runtime.locks import run_lock

with run_lock(Path(sys.argv[1])):
    if os.fork() == 0:
        print(os.getpid(), flush=True)
    time.sleep(60)
"""


def test_a_run_that_is_killed_leaves_the_folder_free_whatever_it_has_started(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDS_AND_FORKS, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        try:
            with pytest.raises(UserError, match="another run is in progress there"), run_lock(tmp_path):
                pass
            process.kill()
            process.wait(timeout=30)
            with run_lock(tmp_path):
                os.kill(child, 0)
        finally:
            os.kill(child, signal.SIGKILL)


def test_where_there_are_no_locks_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with caplog.at_level(logging.WARNING), run_lock(tmp_path):
        assert "a second start would not be noticed" in caplog.text
