"""A row of each published set, from its file to a rollout whose code runs in a container, or a process of the host."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import pytest_asyncio

from codedance_verl.data.parquet import write_rows
from codedance_verl.data.rows import Kind
from codedance_verl.data.schema import RECORD_SCHEMA
from codedance_verl.data.table import StoredRow, open_table
from codedance_verl.datasets.commands import Options, convert
from codedance_verl.environment.observations import observation_text
from codedance_verl.rollout import agent_loop as module
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.node import SandboxNode
from codedance_verl.sandbox.pool import SandboxPool
from codedance_verl.types import IMAGE_PLACEHOLDER
from tests.unit.data.loading import dataset, load
from tests.unit.datasets.test_converters import DEMONSTRATIONS, QUESTIONS, TRACES
from tests.unit.environment.harness import Say, Script, loop_of

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

CODE = """import hashlib, json
def digest(image):
    return hashlib.sha256(f"{image.width}x{image.height}:".encode() + image.convert("RGB").tobytes()).hexdigest()
print(json.dumps([digest(image) for image in input_images]))"""
TURNS = (f"<think>so</think><code>\n```python\n{CODE}\n```\n</code>", "<answer>1</answer>")


@pytest_asyncio.fixture(
    scope="module", loop_scope="module", params=[pytest.param("docker", marks=pytest.mark.docker), "process"]
)
async def pool(request: pytest.FixtureRequest) -> AsyncIterator[SandboxPool]:
    """One container, or one process in the place of it, for all sets."""
    if request.param == "docker":
        request.getfixturevalue("sandbox_image")
    node = SandboxNode(SandboxConfig(backend=request.param, containers=1, standby_containers=0))
    await node.start()
    yield SandboxPool([node])
    await node.shutdown()


class _Model:
    """Says these turns, and counts the images of each request."""

    def __init__(self, turns: Sequence[str] = TURNS) -> None:
        self._turns = iter(turns)
        self.shown: list[int] = []

    async def generate(self, image_data: Any = None, **_: Any) -> Any:
        self.shown.append(len(image_data or []))
        ids = Say(next(self._turns)).token_ids
        return SimpleNamespace(token_ids=ids, log_probs=[-0.1] * len(ids), stop_reason="completed", extra_fields={})


@pytest.mark.parametrize("name", QUESTIONS)
async def test_model_and_code_see_the_image_of_the_published_row(name: str, pool: SandboxPool, tmp_path: Path) -> None:
    out = _converted(name, QUESTIONS[name][0](tmp_path), tmp_path)
    assert await _hashes_in_a_rollout(out, pool, tmp_path)


@pytest.mark.parametrize("name", sorted(set(DEMONSTRATIONS) - set(TRACES)))
async def test_model_and_code_see_the_images_that_a_demonstration_is_asked_with(
    name: str, pool: SandboxPool, tmp_path: Path
) -> None:
    row = _demonstration(name, DEMONSTRATIONS[name](tmp_path), tmp_path)
    assert await _hashes_in_a_rollout(_asked(row, tmp_path), pool, tmp_path)


@pytest.mark.parametrize("name", TRACES)
async def test_a_demonstrated_call_gives_the_feedback_that_is_demonstrated(
    name: str, pool: SandboxPool, tmp_path: Path
) -> None:
    row = _demonstration(name, TRACES[name](tmp_path), tmp_path)
    # these have no image, without which the files of RL take no question
    item = {
        "raw_prompt": [{"role": "user", "content": row.messages[0].content}],
        "reward_model": {"ground_truth": "3"},
        "data_source": "demonstration",
        "extra_info": row.extra_info,
    }
    said = [message.content for message in row.messages if message.role == "assistant"]
    output = await _rolled_out(item, _Model(said), pool)
    (called, _answered) = output.trajectory.turns
    assert observation_text(called.execution) == row.messages[2].content
    assert output.trajectory.answer == "\\boxed{3}"


def _converted(name: str, file: Path, folder: Path) -> Path:
    out, downloads = folder / "made" / "out.parquet", folder / "downloads"
    convert([file], Options(out), name.split(",")[0], image_folder=downloads if downloads.is_dir() else None)
    return out


def _demonstration(name: str, file: Path, folder: Path) -> StoredRow:
    return open_table([_converted(name, file, folder)], folder / "demonstrations", Kind.DEMONSTRATIONS)[0]


def _asked(row: StoredRow, folder: Path) -> Path:
    """File of the question of a demonstration: its messages before the first reply."""
    first = [message.role for message in row.messages].index("assistant")
    asked = [{"role": message.role, "content": message.content} for message in row.messages[:first]]
    shown = sum(message["content"].count(IMAGE_PLACEHOLDER) for message in asked)
    images = [{"bytes": source.read_bytes(), "path": None} for source in row.sources[:shown]]
    reward = {"style": "model", "ground_truth": "1"}
    question = {"data_source": "demonstration", "prompt": asked, "images": images, "reward_model": reward}
    write_rows(folder / "asked.parquet", [question], RECORD_SCHEMA)
    return folder / "asked.parquet"


async def _hashes_in_a_rollout(file: Path, pool: SandboxPool, folder: Path) -> tuple[str, ...]:
    """SHA-256 of the images of the first record, as both the code of a rollout and the model saw them."""
    model = _Model()
    output = await _rolled_out(dataset([file], folder / "table")[0], model, pool)
    (loaded, *_) = await asyncio.to_thread(load, [file], folder / "again")  # it runs a loop of its own
    assert tuple(json.loads(output.trajectory.turns[0].execution.stdout)) == loaded.model_hashes
    assert len(loaded.model_hashes) == model.shown[0] and output.trajectory.answer == "1"
    return loaded.model_hashes


async def _rolled_out(item: dict[str, Any], model: _Model, pool: SandboxPool) -> Any:
    with mock.patch.object(module.SandboxPool, "connect", return_value=pool):
        return await loop_of(Script([]), model).run({}, **item)
