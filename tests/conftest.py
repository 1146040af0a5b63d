"""What tests share: the Docker engine and the sandbox image, and what happens where there is none."""

from __future__ import annotations

import functools
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from codedance_verl.errors import UserError
from tests.required import lacks

if TYPE_CHECKING:
    from docker import DockerClient


if shutil.which("nvidia-smi") is None:
    # a dry run with GPU options sets `nvidia` in this process, where verl's parts are tested on the CPU afterwards
    os.environ.setdefault("VERL_PLATFORM", "cpu")


@functools.cache
def _engine() -> DockerClient | str:
    """A client of the engine, started first where we may; else the reason why there is none."""
    from codedance_verl.sandbox.engine import ensure_engine

    try:
        return ensure_engine(may_start=True)
    except UserError as error:
        return str(error)


def _require_engine() -> DockerClient:
    found = _engine()
    if isinstance(found, str):
        lacks(f"a Docker engine: {found}")
    return found


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("docker") is not None:
        _require_engine()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fast tests come first."""
    items.sort(key=lambda item: any(item.get_closest_marker(name) for name in ("docker", "slow")))


@pytest.fixture(scope="session")
def docker_engine() -> DockerClient:
    """A client of a running engine. Tests that use it carry the marker `docker`."""
    return _require_engine()


@pytest.fixture(scope="session")
def sandbox_image(docker_engine: DockerClient) -> str:
    """Tag of this checkout's sandbox image, built if need be."""
    from codedance_verl.sandbox.image import build_image

    return build_image(docker_engine)
