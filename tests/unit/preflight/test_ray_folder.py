"""A folder for Ray whose sockets would have paths too long is one line at the start."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf
from ray._private.utils import validate_socket_filepath

from codedance_verl.preflight.files import _SOCKET, MAX_SOCKET_BYTES, check_ray_folder
from codedance_verl.preflight.report import Report

KEY = "ray_kwargs.ray_init._temp_dir"


def found(**ray_init: object) -> list[str]:
    report = Report()
    check_ray_folder(OmegaConf.create({"ray_kwargs": {"ray_init": ray_init}}), report)
    return report.findings


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_TMPDIR", "TMPDIR", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


def test_the_bound_is_that_of_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray takes the sockets of the longest folder that passes, and those of no longer one."""
    monkeypatch.setattr("os.getpid", lambda: 1234567)
    socket = _SOCKET.format(pid=1234567)
    fits = "/tmp/" + "x" * (MAX_SOCKET_BYTES - len(socket) - 5)
    assert found(_temp_dir=fits) == []
    validate_socket_filepath(fits + socket)
    assert len(found(_temp_dir=f"{fits}x")) == 1
    with pytest.raises(OSError, match="AF_UNIX"):
        validate_socket_filepath(f"{fits}x{socket}")


def test_the_line_names_the_key_or_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    long = "/tmp/" + "x" * 60
    (line,) = found(_temp_dir=long)
    assert line.startswith(f"{KEY}={long}: ") and "choose a shorter folder" in line
    assert found() == [] == found(_temp_dir=long, address="10.0.0.1:6379")
    monkeypatch.setenv("RAY_TMPDIR", long)
    (line,) = found()
    assert line.startswith(f"RAY_TMPDIR={long}/ray: ")
