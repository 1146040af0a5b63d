"""Every attack of the catalogue on the real engine, and proof that the selfcheck can fail."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from codedance_verl.errors import UserError
from codedance_verl.sandbox.docker import reaper
from codedance_verl.sandbox.docker.container import DockerLauncher
from codedance_verl.sandbox.docker.launcher import Launcher
from codedance_verl.sandbox.node import SandboxNode
from codedance_verl.sandbox.process import ProcessLauncher
from sandbox_security import selfcheck
from sandbox_security.attacks.attack import Attack
from sandbox_security.attacks.catalogue import ALL
from sandbox_security.attacks.runner import AttackRunner, Outcome, host_secrets
from sandbox_security.selfcheck import Report

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

CONFIG = selfcheck.SMALL.replace(backend="docker")
NAMES = [f"{attack.group}: {attack.name}" for attack in ALL]
CLOSED_BY_THE_PROFILE = {
    "trace a process",
    "read and write the memory of a process",
    "pass calls by the filter through io_uring",
    "take cores or priority from another process",
    "use the kernel's keyrings",
    "watch what others do with files",
    "weaken address randomisation",
    "become inspectable, to rewrite the supervisor of its session from the next cell",
    "TCP over IPv4",
    "the kernel's own protocol (netlink)",
    "offer a server to other sessions",
    "leave memory behind that belongs to no process",
}


class Unconfined(DockerLauncher):
    """Containers without a list of system calls."""

    def security_options(self) -> list[str]:
        return ["no-new-privileges:true", "seccomp=unconfined"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def report(sandbox_image: str) -> AsyncIterator[Report]:
    yield await selfcheck.run(CONFIG, with_attacks=True)


async def carry_out(launcher: Launcher, in_container: bool, attacks: list[Attack]) -> dict[str, Outcome]:
    with host_secrets() as hidden:
        node = SandboxNode(CONFIG, launcher)
        await node.start()
        try:
            async with AttackRunner(node, in_container, launcher.own_uids, hidden) as runner:
                return {outcome.attack.name: outcome for outcome in await runner.run_all(attacks)}
        finally:
            await node.shutdown()


@pytest.mark.docker
async def test_what_cells_rely_on_works(report: Report) -> None:
    assert {outcome.name: outcome.problem for outcome in report.basics if outcome.problem} == {}


@pytest.mark.docker
@pytest.mark.parametrize("number", range(len(ALL)), ids=NAMES)
async def test_an_attack_is_contained(report: Report, number: int) -> None:
    outcome = report.attacks[number]
    assert outcome.contained, outcome.problem or outcome.skipped


@pytest.mark.docker
async def test_without_the_profile_the_selfcheck_finds_what_it_closes(sandbox_image: str) -> None:
    attacks = [attack for attack in ALL if attack.name in CLOSED_BY_THE_PROFILE]
    outcomes = await carry_out(Unconfined(CONFIG, reaper.Owner.current()), True, attacks)
    assert {name for name, outcome in outcomes.items() if outcome.problem} == CLOSED_BY_THE_PROFILE


async def test_without_a_container_the_selfcheck_finds_that_files_of_the_host_are_read() -> None:
    (attack,) = (attack for attack in ALL if attack.name == "read a file of the host by its path")
    outcomes = await carry_out(ProcessLauncher(CONFIG), False, [attack])
    assert "secret" in outcomes[attack.name].problem


@pytest.mark.docker
async def test_a_runtime_the_engine_does_not_know_is_told_with_what_to_do(sandbox_image: str) -> None:
    launcher = DockerLauncher(CONFIG.replace(runtime="nosuch"), reaper.Owner.current())
    with pytest.raises(UserError, match=r"sandbox\.runtime='nosuch': the engine knows .*runc.*leave sandbox\.runtime"):
        launcher.prepare()
    launcher.close()


async def test_the_command_says_honestly_what_a_process_does_not_contain() -> None:
    command = [sys.executable, "-m", "codedance_verl.cli", "sandbox", "selfcheck", "--attacks", "--json"]
    done = subprocess.run(
        [*command, "--backend", "process"], cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=240
    )
    told = json.loads(done.stdout)
    assert done.returncode == 0 and told["passed"], done.stdout
    states = {(item["class"], item["name"]): item["state"] for item in told["attacks"]}
    assert len(states) == len(ALL)
    assert states["escape", "trace a process"] == "skipped"
    assert states["time", "loop"] == "contained"
