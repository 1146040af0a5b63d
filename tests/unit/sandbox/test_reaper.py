"""Telling a dead owner from a living one."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from codedance_verl.sandbox.docker import reaper
from codedance_verl.sandbox.docker.reaper import Owner


def test_an_owner_survives_being_written_and_read() -> None:
    owner = Owner.current()
    assert Owner.parse(str(owner)) == owner


@pytest.mark.parametrize("text", ["", "a/b/c/d", "1/2/3", "x/y/1/-2"])
def test_other_labels_are_no_owner(text: str) -> None:
    assert Owner.parse(text) is None


def test_this_process_lives_and_a_reused_pid_does_not_count() -> None:
    owner = Owner.current()
    assert not owner.is_dead()
    assert replace(owner, started=owner.started + 1).is_dead()
    assert replace(owner, boot_id="another boot").is_dead()
    assert not replace(owner, started=owner.started + 1, namespace="pid:[1]").is_dead()  # cannot be seen from here


def test_a_process_that_has_ended_is_dead_also_as_a_zombie() -> None:
    script = "from codedance_verl.sandbox.docker.reaper import Owner; print(Owner.current(), flush=True); input()"
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    owner = Owner.parse(process.stdout.readline().strip())
    assert owner is not None and not owner.is_dead()
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has collected it
    assert owner.is_dead()
    process.wait()
    assert owner.is_dead()


def test_folders_of_dead_processes_are_removed_and_no_others() -> None:
    mine = reaper.owned_directory()
    parts = mine.name.split("-")
    dead = mine.parent / "-".join([parts[0], parts[1], str(int(parts[2]) + 1), parts[3], "test"])
    dead.mkdir()
    reaper.remove_dead_directories()
    assert mine.is_dir() and not dead.exists()
    mine.rmdir()
