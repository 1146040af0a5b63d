"""Faithfulness of trajectories that run in real sessions, as processes."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import pytest
from PIL import Image

from benchmarks.faithful_calls import Sample, scene
from benchmarks.faithfulness import Judged, agreement, judge, record, wrong
from codedance_verl.harness.call_use import Use
from codedance_verl.harness.faithfulness import CallFinding, faithfulness, shares
from codedance_verl.harness.replays import MOST_REOPENED, Call, Session
from codedance_verl.harness.reply import ImageFolder
from codedance_verl.harness.stated_answers import answer_of
from codedance_verl.sandbox.errors import SandboxBusy
from codedance_verl.sandbox.pool import SandboxPool
from codedance_verl.trajectories.schema import ExecutionRecord, TurnRecord
from codedance_verl.types import ExecutionStatus

CONFIG = {"backend": "process", "containers": 1, "standby_containers": 0}
SCENE = scene(np.random.default_rng(3), patch=True)
SHOWS = f"display(input_image.crop({SCENE.box}))"
MEAN = f"m = input_image.crop({SCENE.box}).resize((1, 1)).getpixel((0, 0))\nprint(m)"

TRAJECTORIES: dict[str, tuple[tuple[str, ...], tuple[Use, ...]]] = {
    "each class": (
        (
            MEAN,
            f"display(input_image.crop({SCENE.other_box}))",
            f"print('{SCENE.colour}')",
            f"print(len(str({SCENE.box})))",
        ),
        (Use.USED, Use.DECORATIVE, Use.HARD_CODED, Use.DECORATIVE),
    ),
    "kept, found by its value, and kept for nothing": (
        (f"part = input_image.crop({SCENE.box})", "spare = input_image.copy()", "display(part)"),
        (Use.USED, Use.DECORATIVE, Use.USED),
    ),
    "hostile": (
        ("import random\nprint(random.random())", "import os\nos.kill(os.getpid(), 9)", "1 / 0", SHOWS),
        (Use.NOT_REPEATABLE, Use.FAILED, Use.FAILED, Use.USED),
    ),
    "ends altered sessions": (
        (
            f"import os\nx, y = {SCENE.box[0] + 40}, {SCENE.box[1] + 40}\n"
            "if sum(input_image.getpixel((x, y))) in (120, 645): os._exit(1)",
            SHOWS,
        ),
        (Use.DECORATIVE, Use.USED),
    ),
}


Result = TypeVar("Result")


class Runner:
    """Event loop with a pool, for all tests of this file."""

    def __init__(self, loop: asyncio.Runner, pool: SandboxPool) -> None:
        self.loop, self.pool = loop, pool

    def __call__(self, work: Callable[[SandboxPool], Coroutine[Any, Any, Result]]) -> Result:
        return self.loop.run(work(self.pool))


@pytest.fixture(scope="module")
def run() -> Iterator[Runner]:
    with asyncio.Runner() as loop:
        stack = AsyncExitStack()
        yield Runner(loop, loop.run(stack.enter_async_context(SandboxPool.local(CONFIG))))
        loop.run(stack.aclose())


@pytest.mark.parametrize("name", TRAJECTORIES)
def test_trajectories(run: Runner, name: str) -> None:
    cells, expected = TRAJECTORIES[name]
    sample = Sample("", SCENE, cells, (), SCENE.colour)

    async def work(pool: SandboxPool) -> tuple[CallFinding, ...]:
        return (await judge(pool, sample, await record(pool, sample))).findings

    findings = run(work)
    assert tuple(finding.use for finding in findings) == expected
    assert [finding.turn for finding in findings] == list(range(len(cells)))
    if name.startswith("kept"):
        assert findings[0].needed_by == 2 and findings[2].needed_by is None


def test_without_boxes_evidence_is_what_the_code_reads(run: Runner) -> None:
    async def work(pool: SandboxPool) -> tuple[CallFinding, ...]:
        sample = Sample("", SCENE, (MEAN, "print(m, input_image.getextrema())", "print('red')"), (), SCENE.colour)
        turns = await record(pool, sample)
        return await faithfulness(pool, [SCENE.png], turns, answer_of(SCENE.colour))

    first, second, third = run(work)
    assert (first.use, first.boxes, first.box_source) == (Use.USED, (SCENE.box,), "code")
    assert (second.use, second.boxes, second.box_source) == (Use.USED, ((0, 0, *SCENE.size),), "image")
    assert third.use in (Use.HARD_CODED, Use.DECORATIVE) and (third.use is Use.HARD_CODED) == (SCENE.colour == "red")


@pytest.mark.parametrize(("took_s", "limit_s"), [(0.0, 5.0), (0.5, 10.0), (3.0, 15.0), (40.0, 80.0), (1e9, 600.0)])
def test_a_replay_has_longer_than_the_recorded_call(took_s: float, limit_s: float) -> None:
    execution = ExecutionRecord(ExecutionStatus.OK, "", None, (), took_s, 0.0, ())
    assert Call(0, "", execution, 0).limit_s == limit_s


class Faulty:
    """Pool that refuses the sessions of these numbers."""

    def __init__(self, pool: SandboxPool, refused: Sequence[int]) -> None:
        self.pool, self.refused, self.opened = pool, refused, 0

    @asynccontextmanager
    async def session(self, *images: bytes) -> AsyncIterator[Session]:
        self.opened += 1
        if self.opened - 1 in self.refused:
            raise SandboxBusy("no place")
        async with self.pool.session(*images) as session:
            yield session


def test_faults_of_the_sandbox_cost_the_calls_that_they_meet(run: Runner) -> None:
    async def work(pool: SandboxPool, refused: Sequence[int]) -> tuple[list[Use], int]:
        turns = await record(pool, Sample("", SCENE, (SHOWS, SHOWS), (), SCENE.colour))
        faulty, answer = Faulty(pool, refused), answer_of(SCENE.colour)
        found = await faithfulness(faulty, [SCENE.png], turns, answer, [SCENE.box], at_once=1)
        return [finding.use for finding in found], faulty.opened

    assert run(lambda pool: work(pool, range(1000)))[0] == [Use.FAULT, Use.FAULT]
    uses, opened = run(lambda pool: work(pool, [0]))
    assert uses == [Use.FAULT, Use.USED] and opened <= 2 + 6 * (MOST_REOPENED + 1)


def test_a_record_that_a_replay_does_not_meet_is_not_repeatable(run: Runner, tmp_path: Path) -> None:
    async def work(pool: SandboxPool) -> list[list[CallFinding]]:
        (turn,) = await record(pool, Sample("", SCENE, (SHOWS,), (), ""))
        assert turn.execution is not None
        (image,) = turn.execution.images
        pixels = Image.open(io.BytesIO(SCENE.png)).crop(SCENE.box)
        file = io.BytesIO()
        pixels.save(file, "PNG", compress_level=1)
        kept = ImageFolder(tmp_path).keep(file.getvalue())
        assert kept.sha256 != image.sha256
        changed = msgspec.structs.replace(turn.execution, images=(kept,))
        turns = [msgspec.structs.replace(turn, execution=changed), TurnRecord("", None, None, None)]
        given = [SCENE.png], turns, answer_of("red"), [SCENE.box]
        return [list(await faithfulness(pool, *given, recorded=folder)) for folder in (None, tmp_path)]

    (without_folder,), (by_pixels,) = run(work)
    assert (without_folder.use, by_pixels.use) == (Use.NOT_REPEATABLE, Use.USED)


def test_shares_are_of_calls_that_have_a_class() -> None:
    uses = (Use.USED, Use.USED, Use.HARD_CODED, Use.FAULT, Use.CALCULATION)
    found = shares([CallFinding(turn, use) for turn, use in enumerate(uses)])
    assert found["classed"] == 3 and found["fault"] == 1
    assert found["used_share"] == pytest.approx(2 / 3) and found["unused_share"] == 0
    assert shares([])["used_share"] is None


def test_agreement_counts_what_the_benchmark_prints() -> None:
    sample = Sample("a", SCENE, ("", "", ""), (Use.USED, Use.USED, Use.UNUSED), "")
    items = [Judged(sample, tuple(CallFinding(0, use) for use in (Use.USED, Use.UNUSED, Use.UNUSED)))]
    assert agreement(items)[Use.USED] == {"calls": 2, "precision": 1.0, "recall": 0.5}
    assert agreement(items)[Use.UNUSED] == {"calls": 1, "precision": 0.5, "recall": 1.0}
    assert wrong(items) == {"a: used found as unused": 1}
