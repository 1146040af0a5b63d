"""What tests share: the Docker engine and the sandbox image, and what happens where there is none."""

from __future__ import annotations

import functools
import logging
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from codedance_verl.errors import UserError
from tests.required import lacks

if TYPE_CHECKING:
    from docker import DockerClient
    from xdist.remote import Producer
    from xdist.scheduler import LoadFileScheduling


if shutil.which("nvidia-smi") is None:
    # a dry run with GPU options sets `nvidia` in this process, where verl's parts are tested on the CPU afterwards
    os.environ.setdefault("VERL_PLATFORM", "cpu")


@functools.cache
def _engine() -> DockerClient | str:
    """A client of the engine, started first where we may; else the reason why there is none."""
    from codedance_verl.sandbox.docker.engine import ensure_engine

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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Fast tests come first; in several processes those that take long, so that all processes end together."""
    items.sort(key=_cost, reverse=hasattr(config, "workerinput"))


def _cost(item: pytest.Item) -> int:
    """0 fast, 1 slow, 2 a whole run, 3 a whole run with containers."""
    docker, run, slow = (item.get_closest_marker(name) is not None for name in ("docker", "e2e", "slow"))
    return 2 + docker if run else int(slow or docker)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling:
    """In several processes the tests of a file share one. So do whole runs with containers, which look for all there
    are."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "containers" if file in runs_with_containers else file

    runs_with_containers = {
        path.relative_to(config.rootpath).as_posix()
        for path in Path(__file__).parent.glob("e2e/test_*.py")
        if "pytest.mark.docker" in path.read_text()
    }
    return Scheduling(config, log)


@pytest.fixture(autouse=True)
def _logging_as_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    """Lets the project's warnings through: commands, and libraries that are called in this process, silence them.

    vLLM's model_hosting_container_standards raises the level of all handlers of the root, pytest's own among them.
    """
    logging.disable(logging.NOTSET)
    caplog.set_level(logging.WARNING)
    for logger in _own_loggers():
        logger.disabled, logger.propagate = False, True
        logger.setLevel(logging.NOTSET)


def _own_loggers() -> list[logging.Logger]:
    found = [logger for name, logger in logging.root.manager.loggerDict.items() if name.startswith("codedance")]
    return [logger for logger in found if isinstance(logger, logging.Logger)]


@pytest.fixture(scope="session")
def docker_engine() -> DockerClient:
    """A client of a running engine. Tests that use it carry the marker `docker`."""
    return _require_engine()


@pytest.fixture(scope="session")
def sandbox_image(docker_engine: DockerClient) -> str:
    """Tag of this checkout's sandbox image, built if need be."""
    from codedance_verl.sandbox.docker.image import build_image

    return build_image(docker_engine)
