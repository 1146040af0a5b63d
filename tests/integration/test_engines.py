"""verl's engines with ours in their place, on one rank and on two (gloo), on the same rollouts: actor, critic, LoRA."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText

from recipes.cpu_demo.demo_set import DemoSizes, make_demo_data
from recipes.cpu_demo.tiny_vlm import build_tiny_model
from tests.integration.engine_rank import UPDATES

REPOSITORY = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Trained:
    """What came of training on so many ranks: figures, and where the rest lies."""

    found: dict[str, Any]
    folder: Path


def _train(model: Path, folder: Path, world: int) -> Trained:
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"VERL_PLATFORM": "cpu", "HF_HUB_OFFLINE": "1", "TORCHDYNAMO_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world)}
    command = [sys.executable, "-m", "tests.integration.engine_rank", str(model), str(folder)]
    ranks = []
    for rank in range(world):
        environment = {**os.environ, **common, **meeting, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        with (folder / f"{rank}.log").open("w") as log:
            ranks.append(subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=log, stderr=log))
    try:
        codes = [process.wait(timeout=500) for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    assert codes == [0] * world, (folder / "0.log").read_text()[-3000:]
    return Trained(json.loads((folder / "found.json").read_text()), folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engines")
    make_demo_data(folder / "data", seed=0, sizes=DemoSizes(sft=200, rl_train=1, rl_val=1, test=6, blank=1, controls=0))
    return build_tiny_model(folder / "data" / "sft.parquet", folder / "tiny")


@pytest.fixture(scope="module")
def one(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return _train(model, tmp_path_factory.mktemp("ranks") / "one", 1)


@pytest.fixture(scope="module")
def two(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return _train(model, tmp_path_factory.mktemp("ranks") / "two", 2)


@pytest.mark.parametrize("role", ["actor", "critic"])
def test_two_ranks_have_the_losses_and_gradients_of_one(one: Trained, two: Trained, role: str) -> None:
    assert len(one.found[role]) == UPDATES
    for ours, theirs in zip(two.found[role], one.found[role], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-4)
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-3)


def test_a_critic_learns(one: Trained) -> None:
    losses = [update["loss"] for update in one.found["critic"]]
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]


@pytest.mark.parametrize("world", ["one", "two"])
def test_lora_moves_what_has_an_adapter_and_its_folder_holds_the_merged_model(
    model: Path, world: str, request: pytest.FixtureRequest
) -> None:
    trained: Trained = request.getfixturevalue(world)
    moved = trained.found["moved"]
    assert moved
    assert not [name for name in moved if any(part in name for part in ("norm", "embed", "lm_head", "bias"))]
    merged = torch.load(trained.folder / "merged.pt")
    saved = AutoModelForImageTextToText.from_pretrained(trained.folder / "lora" / "huggingface").state_dict()
    before = AutoModelForImageTextToText.from_pretrained(model).state_dict()
    for name, weight in saved.items():
        assert torch.equal(weight, merged[name])
        assert torch.equal(weight, before[name]) == (name not in moved)
