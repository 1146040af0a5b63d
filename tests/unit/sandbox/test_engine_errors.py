"""No engine: one line that names the cause and the cure."""

from __future__ import annotations

from pathlib import Path

import pytest

from codedance_verl.errors import UserError
from codedance_verl.sandbox.backend import choose_launcher
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.docker import engine
from codedance_verl.sandbox.process import ProcessLauncher


@pytest.fixture(autouse=True)
def no_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")


def test_an_engine_that_was_named_and_does_not_answer_is_told_by_name() -> None:
    with pytest.raises(UserError, match=r"DOCKER_HOST=unix://.*none\.sock; start it or unset it"):
        engine.ensure_engine(may_start=True)


def test_docker_never_falls_back_silently() -> None:
    with pytest.raises(UserError, match="DOCKER_HOST"):
        choose_launcher(SandboxConfig(backend="docker"))


def test_auto_falls_back_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(choose_launcher(SandboxConfig(backend="auto")), ProcessLauncher)
    assert "found no container engine" in capsys.readouterr().err
