"""Self-check of this machine's sandbox (`codedance sandbox selfcheck`): basic cells, and attacks that it must contain.

First what cells rely on: libraries, images, state, rollback, deadlines. Then, on demand, every attack of `attacks/`.
"""

from __future__ import annotations

import dataclasses
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image
from rich.console import Console
from rich.table import Table
from rich.text import Text

from codedance_verl.sandbox.backend import choose_launcher
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.docker.launcher import Launcher
from codedance_verl.sandbox.errors import SandboxError
from codedance_verl.sandbox.node import SandboxNode
from codedance_verl.sandbox.pool import SandboxPool
from codedance_verl.sandbox.process import ProcessLauncher
from codedance_verl.types import Execution, ExecutionStatus
from sandbox_security.attacks.attack import Attack, Needs, cell
from sandbox_security.attacks.catalogue import ALL
from sandbox_security.attacks.runner import AttackRunner, HostSecrets, Outcome, host_secrets

SMALL = SandboxConfig(
    containers=1,
    sessions_per_container=16,
    cell_timeout_s=20.0,
    kill_grace_s=1.0,
    queue_timeout_s=60.0,
    open_timeout_s=30.0,
    memory_mb=1280,
    session_memory_mb=384,
    session_processes=16,
    scratch_mb=64,
    pids=256,
    recycle_sessions=0,
    recycle_growth_mb=0,
)
"""One container in which bombs are over soon; every session of an attack has its neighbour in it.

It is not recycled: the neighbour would stay in the old one, and the attacks to come would be in another.
"""

RUNTIME_PIDS = 4096  # a runtime with a kernel of its own counts its threads among those of the container

STATES = ("contained", "not contained", "skipped")
Progress = Callable[[str], None]


@dataclass(frozen=True)
class BasicCheck:
    """Cells of one session, and what the last must show: its status, its text, and the sizes of its images."""

    name: str
    cells: tuple[str, ...]
    stdout: str = ""
    sizes: tuple[tuple[int, int], ...] = ()
    status: ExecutionStatus = ExecutionStatus.OK
    timeout_s: float = 20.0


@dataclass(frozen=True)
class CheckOutcome:
    """Outcome of a basic check; `problem` is empty when it passed."""

    name: str
    problem: str
    seconds: float


@dataclass(frozen=True)
class Report:
    """The whole result. `attacks` is empty when none were asked for."""

    backend: str
    runtime: str
    basics: tuple[CheckOutcome, ...]
    attacks: tuple[Outcome, ...]
    seconds: float

    @property
    def passed(self) -> bool:
        return not any(item.problem for item in self.basics) and not any(item.problem for item in self.attacks)

    def as_json(self) -> dict[str, object]:
        return {
            "backend": self.backend,
            "runtime": self.runtime,
            "passed": self.passed,
            "seconds": round(self.seconds, 1),
            "basics": [dataclasses.asdict(outcome) for outcome in self.basics],
            "attacks": [
                {
                    "name": outcome.attack.name,
                    "class": outcome.attack.group,
                    "state": _state(outcome),
                    "reason": outcome.problem or outcome.skipped,
                    "seconds": round(outcome.seconds, 3),
                }
                for outcome in self.attacks
            ],
        }


def _library(name: str, code: str, stdout: str) -> BasicCheck:
    return BasicCheck(f"{name} works", (code,), stdout + "\n")


BASICS = (
    _library("numpy", "import numpy as np; int(np.linalg.inv(np.eye(200) * 2).sum())", "100"),
    _library("Pillow", "from PIL import Image, ImageFilter; input_image.filter(ImageFilter.BLUR).size", "(64, 48)"),
    _library("OpenCV", "import cv2; cv2.Canny(cv2.imread('input_image.png'), 50, 100).shape", "(48, 64)"),
    _library("scipy", "from scipy import optimize; round(optimize.brentq(lambda x: x**2 - 2, 0, 2), 3)", "1.414"),
    _library("sympy", "import sympy; x = sympy.Symbol('x'); sympy.integrate(2 * x, x)", "x**2"),
    _library("pandas", "import pandas as pd; int(pd.DataFrame({'a': [1, 1, 2]}).groupby('a').size()[1])", "2"),
    _library("scikit-learn", "from sklearn.metrics import accuracy_score; accuracy_score([1, 0], [1, 1])", "0.5"),
    _library("tqdm", "from tqdm import tqdm; print(sum(tqdm([1, 2], disable=True)))", "3"),
    _library("scikit-image", "import numpy as np, skimage.measure as m; m.label(np.eye(3)).max().item()", "1"),
    BasicCheck(
        "matplotlib draws",
        ("import matplotlib.pyplot as plt\nplt.figure(figsize=(2, 1), dpi=50); plt.plot([1, 2]); plt.show()",),
        sizes=((100, 50),),
    ),
    BasicCheck("images come back", ("input_image.crop((0, 0, 10, 5))",), sizes=((10, 5),)),
    BasicCheck("variables persist", ("x = 20", "x + 2"), "22\n"),
    BasicCheck("a failed cell is undone", ("x = [1]", "x.append(2); 1/0", "x"), "[1]\n"),
    BasicCheck("a crash is survived", ("x = 1", "import ctypes; ctypes.string_at(0)", "x"), "1\n"),
    BasicCheck("the deadline holds", ("while True: pass",), status=ExecutionStatus.TIMEOUT, timeout_s=0.5),
    BasicCheck("what was stopped is undone", ("x = 1", "x = 2\nimport os; os.kill(os.getpid(), 19)", "x"), "1\n"),
    BasicCheck("programs run", ("import subprocess; subprocess.run(['echo', 'one'], check=True);",), "one\n"),
    BasicCheck(
        "threads and processes work",
        (
            cell("""
            import concurrent.futures as futures, multiprocessing
            with futures.ThreadPoolExecutor(3) as threads, multiprocessing.Pool(2) as processes:
                print(sum(threads.map(abs, range(5))), sum(processes.map(abs, range(5))))
            """),
        ),
        "10 10\n",
    ),
    BasicCheck("asyncio works", ("import asyncio; asyncio.run(asyncio.sleep(0.01, 'slept'))",), "'slept'\n"),
    BasicCheck(
        "files and temporary folders work",
        (
            cell("""
            import os, shutil, tempfile
            with tempfile.TemporaryDirectory() as folder:
                print(os.path.exists(shutil.copy('input_image.png', folder)))
            """),
        ),
        "True\n",
    ),
)


async def run(config: SandboxConfig, with_attacks: bool, progress: Progress = lambda _: None) -> Report:
    """Checks the sandbox that `config` means. Raises `UserError` or `SandboxUnavailable` when none comes up."""
    started = time.monotonic()
    launcher = choose_launcher(config)
    # before the node: its containers must not inherit what is in the environment now
    with host_secrets() as hidden:
        node = SandboxNode(config, launcher)
        await node.start()
        try:
            basics = await _check_basics(node, progress)
            attacks = await attack(node, launcher, hidden, ALL, progress) if with_attacks else []
        finally:
            await node.shutdown()
    backend = "process" if isinstance(launcher, ProcessLauncher) else "docker"
    return Report(backend, config.runtime, tuple(basics), tuple(attacks), time.monotonic() - started)


async def attack(
    node: SandboxNode, launcher: Launcher, hidden: HostSecrets, attacks: Sequence[Attack], progress: Progress
) -> list[Outcome]:
    """Runs the attacks that `launcher` is to contain on a started node; the others come back as skipped."""
    in_container = not isinstance(launcher, ProcessLauncher)
    # what a backend does not offer is no failure of it, but is listed
    offered = {Needs.NOTHING} | ({Needs.OWN_UIDS} if launcher.own_uids else set())
    offered |= {Needs.CONTAINER} if in_container else set()
    # by identity: the outcomes come in the order of `attacks`, whatever the order of their ends
    outcomes = {id(item): Outcome(item, skipped=f"needs {item.needs}") for item in attacks if item.needs not in offered}
    to_run = [item for item in attacks if item.needs in offered]
    done = 0

    def count(_: Outcome) -> None:
        nonlocal done
        done += 1
        progress(f"{done} of {len(to_run)} attacks")

    async with AttackRunner(node, in_container, launcher.own_uids, hidden) as runner:
        outcomes |= {id(outcome.attack): outcome for outcome in await runner.run_all(to_run, count)}
    return [outcomes[id(item)] for item in attacks]


async def _check_basics(node: SandboxNode, progress: Progress) -> list[CheckOutcome]:
    input_image = io.BytesIO()
    Image.new("RGB", (64, 48), "red").save(input_image, "PNG")
    outcomes = []
    for check in BASICS:
        progress(check.name)
        started = time.monotonic()
        problem = await _basic_problem(node, check, input_image.getvalue())
        outcomes.append(CheckOutcome(check.name, problem, round(time.monotonic() - started, 3)))
    return outcomes


async def _basic_problem(node: SandboxNode, check: BasicCheck, input_image: bytes) -> str:
    try:
        async with SandboxPool([node]).session(input_image) as session:
            for code in check.cells:
                execution = await session.run(code, timeout_s=check.timeout_s if len(check.cells) == 1 else 2.0)
    except SandboxError as error:
        return str(error)
    sizes = tuple((image.width, image.height) for image in execution.images)
    if (execution.status, execution.stdout, sizes) == (check.status, check.stdout, check.sizes):
        return ""
    return f"expected {check.status}, {check.stdout!r}, images {check.sizes}; got {_told(execution)}, images {sizes}"


def _told(execution: Execution) -> str:
    error = f" ({execution.error.kind}: {execution.error.message})" if execution.error else ""
    return f"{execution.status}{error}, {execution.stdout[:200]!r}"


def _state(outcome: Outcome) -> str:
    return STATES[2] if outcome.skipped else STATES[1] if outcome.problem else STATES[0]


def show(report: Report, console: Console) -> None:
    """Prints the report: a table of classes, then every check that failed, then what was not run."""
    runtime = f", runtime {report.runtime}" if report.runtime else ""
    table = Table(title=f"sandbox selfcheck: {report.backend}{runtime}, {report.seconds:.0f} s", title_justify="left")
    for heading in ("", "as it should be", "not", "skipped", "seconds"):
        table.add_column(heading, justify="left" if not heading else "right")
    failed = sum(bool(outcome.problem) for outcome in report.basics)
    _row(table, "basics", len(report.basics) - failed, failed, 0, sum(item.seconds for item in report.basics))
    for group in dict.fromkeys(outcome.attack.group for outcome in report.attacks):
        members = [outcome for outcome in report.attacks if outcome.attack.group == group]
        good, bad, skipped = (sum(_state(item) == state for item in members) for state in STATES)
        _row(table, f"attacks: {group}", good, bad, skipped, sum(item.seconds for item in members))
    console.print(table)
    for check in report.basics:
        if check.problem:
            console.print(Text(f"failed: {check.name}: {check.problem}", "red"))
    for outcome in report.attacks:
        if outcome.problem:
            console.print(Text(f"NOT CONTAINED: {_title(outcome.attack)}: {outcome.problem}", "red"))
    left_out = [outcome for outcome in report.attacks if outcome.skipped]
    if left_out:
        text = f"The {report.backend} backend is not expected to contain these, and they were not run:"
        console.print(Text(text, "yellow"))
    for outcome in left_out:
        console.print(Text(f"  {_title(outcome.attack)} ({outcome.skipped})"))


def _title(attack: Attack) -> str:
    return f"{attack.group}: {attack.name}"


def _row(table: Table, name: str, good: int, bad: int, skipped: int, seconds: float) -> None:
    table.add_row(name, str(good), Text(str(bad), "red" if bad else ""), str(skipped or ""), f"{seconds:.1f}")
