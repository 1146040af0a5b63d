"""The engine of a host in the hands of one actor: what the others may ask of it, and what they do when it has died."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from codedance_verl.errors import UserError
from codedance_verl.sandbox import engine_owner
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.docker.container import cgroup_parent, cpu_shares
from codedance_verl.sandbox.docker.reaper import Owner
from codedance_verl.sandbox.engine_owner import EngineBorrower, EngineOwner, borrowed_launcher
from codedance_verl.sandbox.errors import NodeLost, SandboxError
from codedance_verl.sandbox.process import ProcessLauncher


class Launcher:
    """A launcher that notes what it is asked."""

    own_uids = True
    socket_mode = 0o666

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.asked: list[tuple[Any, ...]] = []

    def launch(self, name: str, socket_directory: str) -> None:
        self.asked.append(("launch", name, socket_directory))

    def remove(self, name: str) -> None:
        self.asked.append(("remove", name))

    def root_uid(self, name: str) -> int:
        self.asked.append(("root_uid", name))
        return 7

    def failure_log(self, name: str) -> str:
        return f"log of {name}"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Launcher]:
    found: list[Launcher] = []

    def prepared(_: SandboxConfig, owner: str) -> Launcher:
        found.append(Launcher(owner))
        return found[-1]

    monkeypatch.setattr(engine_owner, "_prepared", prepared)
    return found


def test_a_borrower_starts_its_containers_by_the_owner_and_under_its_own_name(made: list[Launcher]) -> None:
    owner = EngineOwner(SandboxConfig())
    with asyncio.Runner() as runner:
        launcher = borrowed_launcher(SandboxConfig(), lambda *call: runner.run(owner.call(*call)))
        launcher.prepare()
        launcher.launch("codedance-1-a", Path("/tmp/mine"))
        assert (launcher.socket_mode, launcher.root_uid("codedance-1-a"), launcher.root_uid("b")) == (0o666, 7, 7)
        assert launcher.failure_log("codedance-1-a") == "log of codedance-1-a"
        launcher.remove("codedance-1-a")
        launcher.close()
    assert isinstance(launcher, EngineBorrower) and launcher.count_orphans() == 0
    (theirs,) = made
    assert theirs.owner == str(Owner.current())
    assert theirs.asked == [
        ("launch", "codedance-1-a", "/tmp/mine"),
        ("root_uid", "codedance-1-a"),
        ("remove", "codedance-1-a"),
    ]


def test_owners_have_a_launcher_each_and_a_successor_makes_them_again(made: list[Launcher]) -> None:
    async def ask() -> None:
        for owner in (EngineOwner(SandboxConfig()), EngineOwner(SandboxConfig())):
            await asyncio.gather(*(owner.call(name, "root_uid", "x") for name in ("a", "b", "a")))

    asyncio.run(ask())
    assert [launcher.owner for launcher in made] == ["a", "b", "a", "b"]


def test_nothing_but_a_launchers_methods_can_be_called(made: list[Launcher]) -> None:
    for method in ("close", "prepare", "client", "__init__", "_config"):
        with pytest.raises(SandboxError, match="no method"):
            asyncio.run(EngineOwner(SandboxConfig()).call("a", method))


def test_a_failed_preparation_is_told_and_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = []

    def prepared(_: SandboxConfig, owner: str) -> Launcher:
        attempts.append(owner)
        if len(attempts) == 1:
            raise UserError("no engine")
        return Launcher(owner)

    monkeypatch.setattr(engine_owner, "_prepared", prepared)
    owner = EngineOwner(SandboxConfig())

    async def ask() -> Any:
        with pytest.raises(UserError, match="no engine"):
            await owner.call("a", "socket_mode")
        return await owner.call("a", "socket_mode")

    assert asyncio.run(ask()) == 0o666


def test_where_the_owner_has_died_only_what_needs_it_fails() -> None:
    def dead(*_: str) -> Any:
        raise NodeLost("gone")

    launcher = EngineBorrower(dead)
    launcher.remove("a")
    assert launcher.failure_log("a") == ""
    with pytest.raises(NodeLost):
        launcher.launch("a", Path("/tmp"))
    with pytest.raises(ValueError, match="gone"):
        launcher.root_uid("a")


def test_without_an_engine_each_actor_starts_its_own_processes(made: list[Launcher]) -> None:
    asked: list[tuple[str, ...]] = []

    def call(*arguments: str) -> str:
        asked.append(arguments)
        return "process"

    assert isinstance(borrowed_launcher(SandboxConfig(backend="process"), call), ProcessLauncher)
    assert asked == []
    assert isinstance(borrowed_launcher(SandboxConfig(backend="auto"), call), ProcessLauncher)


@pytest.mark.parametrize(
    ("facts", "parent"),
    [
        ({"CgroupDriver": "cgroupfs"}, "/"),
        ({"CgroupDriver": "systemd", "SecurityOptions": ["name=seccomp,profile=default"]}, "-.slice"),
        ({"CgroupDriver": "systemd", "SecurityOptions": ["name=rootless"]}, None),
        ({"CgroupDriver": "none", "SecurityOptions": None}, None),
        ({}, None),
    ],
)
def test_containers_are_made_at_the_top_of_the_control_groups_where_the_engine_may(
    facts: dict[str, Any], parent: str | None
) -> None:
    assert cgroup_parent(facts) == parent


def test_the_weight_is_that_of_all_containers_together() -> None:
    assert cpu_shares(SandboxConfig(cpu_weight=4096, containers=4)) == 1024
    assert cpu_shares(SandboxConfig(cpu_weight=2, containers=64)) == 2
    assert cpu_shares(SandboxConfig(cpu_weight=1 << 24, containers=1)) == 262_144
