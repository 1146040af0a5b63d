"""Faithfulness of an evaluation on record: files, records, real sessions as processes, findings."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.faithful_calls import Sample, scene
from benchmarks.faithfulness import record
from codedance_verl.errors import UserError
from codedance_verl.harness import faithfulness_run
from codedance_verl.harness.call_use import Use
from codedance_verl.harness.faithfulness import CallFinding, faithfulness
from codedance_verl.harness.faithfulness_run import faithfulness_of
from codedance_verl.harness.replay_sandbox import replay_sandbox
from codedance_verl.harness.reply import Reply
from codedance_verl.harness.reply_findings import (
    Findings,
    ReplyFindings,
    add,
    lines_path,
    opened,
    read_summary,
    summary_path,
)
from codedance_verl.harness.settings import EvalSettings, load
from codedance_verl.records.key import Key, replies_key
from codedance_verl.records.record import Status
from codedance_verl.records.store import open_store
from codedance_verl.sandbox.pool import SandboxPool
from codedance_verl.tasks.registry import task_of
from codedance_verl.trajectories.schema import TurnRecord
from tests.unit.tasks import test_vstar

LIMITS = {"preload": "light", "max_stdout_bytes": 256}
SCENE = scene(np.random.default_rng(3), patch=True)
CELLS = ("print(input_image.size, 'x' * 2000)", "display(input_image.resize((20, 20)))")


def key(control: str = "", sandbox: Mapping[str, Any] = LIMITS) -> Key:
    task, limits = task_of("vstar"), {"sandbox": dict(sandbox)}
    return replies_key(
        task="vstar", revision=task.revision, model="m", prompt="p", sampling={}, limits=limits, control=control
    )


@pytest.fixture(scope="module")
def turns() -> tuple[TurnRecord, ...]:
    """Calls that ran under other limits than those of conf/eval.yaml; the first one's text was cut."""

    async def ran() -> tuple[TurnRecord, ...]:
        async with SandboxPool.local({"backend": "process", "containers": 1, **LIMITS}) as pool:
            return await record(pool, Sample("", SCENE, CELLS, (), ""))

    return asyncio.run(ran())


def evaluated(folder: Path, turns: Sequence[TurnRecord], texts: Sequence[str] = ("red",) * 3) -> EvalSettings:
    """Evaluation of three items, each with these calls and an answer."""
    data = folder / "data"
    for name in test_vstar.CATEGORIES:
        (data / name).mkdir(parents=True, exist_ok=True)
    test_vstar._make(data, "jsonl")
    for path in data.rglob("*.jpg"):
        path.write_bytes(SCENE.png)
    store, items = open_store(folder / "out/vstar", key()), list(task_of("vstar").items(data))
    with store.writer() as writer:
        for work, text in zip(writer.work(lambda: items), texts, strict=True):
            writer.add(work, Status.ANSWERED, Reply(text=text, turns=tuple(turns)).as_json())
    names = {"eval.model": "m", "eval.benchmarks": "[vstar]", "eval.data": data, "eval.out": folder / "out"}
    small = ["sandbox.backend=process", "sandbox.containers=1", "sandbox.standby_containers=0"]
    return load([*(f"{name}={value}" for name, value in names.items()), *small])


def found(settings: EvalSettings, most: int = 100) -> Findings:
    asyncio.run(faithfulness_of(settings, most, lambda _: None))
    return read_summary(summary_path(settings.out, "vstar"))


def test_code_runs_again_under_the_limits_of_the_record(tmp_path: Path, turns: Sequence[TurnRecord]) -> None:
    (one,) = found(evaluated(tmp_path, turns), most=1).findings
    assert [call.use for call in one.calls] == [Use.DECORATIVE, Use.USED]


def test_what_fails_costs_one_reply_and_is_taken_again(
    tmp_path: Path, turns: Sequence[TurnRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = evaluated(tmp_path, turns[1:], ("cm\N{SUPERSCRIPT TWO}", "red", "red"))
    bomb = io.BytesIO()
    Image.new("1", (14_000, 14_000)).save(bomb, "PNG")
    broken = next((tmp_path / "data").rglob("sa_1.jpg"))
    broken.write_bytes(bomb.getvalue())
    first = {one.item: one for one in found(settings).findings}
    assert {item: one.fault[:22] for item, one in first.items()} == {"0": "", "1": "DecompressionBombError", "2": ""}
    assert [call.use for call in first["0"].calls] == [Use.USED]

    broken.write_bytes(SCENE.png)
    taken = []

    async def counted(*given: Any) -> tuple[CallFinding, ...]:
        taken.append(given)
        return await faithfulness(*given)

    monkeypatch.setattr(faithfulness_run, "faithfulness", counted)
    second = found(settings)
    assert len(taken) == 1 and not any(one.fault for one in second.findings)
    assert second.shares["used"] == 3


def test_a_defect_costs_one_reply_and_an_end_keeps_what_was_found(
    tmp_path: Path, turns: Sequence[TurnRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = evaluated(tmp_path, turns)
    ends: list[Exception | None] = [RecursionError("too deep"), None, UserError("the sandbox has gone")]

    async def scripted(*_: Any) -> tuple[CallFinding, ...]:
        if (end := ends.pop(0)) is not None:
            raise end
        return (CallFinding(0, Use.USED),)

    monkeypatch.setattr(faithfulness_run, "faithfulness", scripted)
    with pytest.raises(UserError, match="has gone"):
        found(settings)
    kept = list(opened(lines_path(settings.out, "vstar")).values())
    assert sorted(bool(one.fault) for one in kept) == [False, True]
    assert not summary_path(settings.out, "vstar").exists()
    ends += [None, None]
    assert found(settings).shares["used"] == 3 and ends == []


def test_a_larger_draw_has_the_replies_of_a_smaller_one(
    tmp_path: Path, turns: Sequence[TurnRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def none(*_: Any) -> tuple[CallFinding, ...]:
        return ()

    monkeypatch.setattr(faithfulness_run, "faithfulness", none)
    settings = evaluated(tmp_path, turns)
    few, all_of_them = found(settings, 2), found(settings)
    assert few.findings == all_of_them.findings[:2] and few.replies == len(all_of_them.findings) == 3


def test_half_a_line_spoils_no_other(tmp_path: Path, turns: Sequence[TurnRecord]) -> None:
    path = lines_path(tmp_path, "vstar")
    one, other = (ReplyFindings(of=of, item=of, sample=0, fault="half \ud800") for of in "ab")
    assert opened(path) == {}
    add(path, one)
    with path.open("ab") as file:
        file.write(b'{"of": "c", "it')
    assert list(opened(path)) == ["a"]
    add(path, other)
    assert list(opened(path)) == ["a", "b"]


@pytest.mark.parametrize(
    ("uses", "fault", "again"),
    [
        ((), "", False),
        ((), "an image", True),
        ((Use.FAULT, Use.FAULT), "", True),
        ((Use.FAILED, Use.FAULT), "", True),
        ((Use.FAILED,), "", False),
        ((Use.FAULT, Use.USED), "", False),
    ],
)
def test_replies_whose_sandbox_was_lost_are_taken_again(uses: Sequence[Use], fault: str, again: bool) -> None:
    calls = tuple(CallFinding(turn, use) for turn, use in enumerate(uses))
    assert ReplyFindings(of="", item="", sample=0, calls=calls, fault=fault).again is again


@pytest.mark.parametrize("control", ["blank", "grey_observations"])
def test_replies_without_the_evidence_are_refused(control: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"under the control {control}.*name the output folder"):
        replay_sandbox({}, key(control), tmp_path / "vstar")


def test_settings_that_code_can_notice_are_those_of_the_key() -> None:
    given = {"backend": "process", "containers": 3, "cell_timeout_s": 15.0}
    of = key("forced_tools", {"cell_timeout_s": 60.0, "max_images": 2, "containers": 9, "later": 1})
    chosen = replay_sandbox(given, of, Path("vstar"))
    assert (chosen.containers, chosen.cell_timeout_s, chosen.max_images) == (3, 60.0, 2)
    with pytest.raises(UserError, match=r"key\.json: limits\.sandbox\.max_images"):
        replay_sandbox(given, key(sandbox={"max_images": 0}), Path("vstar"))


def test_a_summary_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vstar.json"
    path.write_text(json.dumps({"version": 0, "key": "", "replies": 0, "shares": {}, "findings": []}))
    with pytest.raises(ValueError, match="version 0"):
        read_summary(path)
