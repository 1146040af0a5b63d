"""A row of each published set, from its file to a rollout whose code runs in a container."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import pytest_asyncio

from codedance_verl.datasets.commands import Options, convert
from codedance_verl.rollout import agent_loop as module
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.node import SandboxNode
from codedance_verl.sandbox.pool import SandboxPool
from tests.unit.data.loading import dataset, load
from tests.unit.datasets.test_converters import QUESTIONS
from tests.unit.environment.harness import Say, Script, loop_of

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow, pytest.mark.docker]

CODE = """import hashlib, json
def digest(image):
    return hashlib.sha256(f"{image.width}x{image.height}:".encode() + image.convert("RGB").tobytes()).hexdigest()
print(json.dumps([digest(image) for image in input_images]))"""
TURNS = (f"<think>so</think><code>\n```python\n{CODE}\n```\n</code>", "<answer>1</answer>")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool(sandbox_image: str) -> AsyncIterator[SandboxPool]:
    node = SandboxNode(SandboxConfig(backend="docker", containers=1, standby_containers=0))
    await node.start()
    yield SandboxPool([node])
    await node.shutdown()


class _Model:
    """Hashes the images of the question in its first turn, and answers in the second."""

    def __init__(self) -> None:
        self._turns = iter(TURNS)
        self.shown: list[int] = []

    async def generate(self, image_data: Any = None, **_: Any) -> Any:
        self.shown.append(len(image_data or []))
        ids = Say(next(self._turns)).token_ids
        return SimpleNamespace(token_ids=ids, log_probs=[-0.1] * len(ids), stop_reason="completed", extra_fields={})


@pytest.mark.parametrize("name", QUESTIONS)
async def test_model_and_code_see_the_image_of_the_published_row(name: str, pool: SandboxPool, tmp_path: Path) -> None:
    file, out = QUESTIONS[name][0](tmp_path), tmp_path / "made" / "out.parquet"
    downloads = tmp_path / "downloads"
    convert([file], Options(out), image_folder=downloads if downloads.is_dir() else None)
    item, model = dataset([out], tmp_path / "table")[0], _Model()
    with mock.patch.object(module.SandboxPool, "connect", return_value=pool):
        output = await loop_of(Script([]), model).run({}, **item)
    execution = output.trajectory.turns[0].execution
    (loaded, *_) = await asyncio.to_thread(load, [out], tmp_path / "again")  # it runs a loop of its own
    assert tuple(json.loads(execution.stdout)) == loaded.model_hashes and len(loaded.model_hashes) == model.shown[0] > 0
    assert output.trajectory.answer == "1"
