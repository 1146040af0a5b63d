"""The quick look at a cold start: rollouts that get images back go on, with the images in what the model sees."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import cold_start
from benchmarks.cold_start import IMAGE_TOKENS, Attempt, Player, measure, summarise
from codedance_verl.data.schema import read_records
from codedance_verl.formats import get_format
from codedance_verl.sandbox.pool import SandboxPool
from recipes.cpu_demo.demo_set import DemoSizes, make_demo_data
from recipes.cpu_demo.tiny_tokenizer import CHAT_TEMPLATE
from recipes.cpu_demo.tiny_vlm import build_tiny_model

SHOWS = "for side in (40, 60):\n    input_image.crop((0, 0, side, side)).show()\nprint(len(input_images))"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    make_demo_data(folder, seed=0, sizes=DemoSizes(sft=40, rl_train=2, rl_val=1, test=3, blank=1, controls=0))
    return folder


@pytest.fixture(scope="module")
def model(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    build_tiny_model(data / "sft.parquet", folder)
    return folder


def play(model: Path, data: Path, codes: Sequence[str], turns: int) -> tuple[Player, list[Attempt]]:
    """Attempts whose first turn is a call of a given code, and whose further turns are the model's own."""

    async def run() -> tuple[Player, list[Attempt]]:
        async with SandboxPool.local({"backend": "process", "queue_timeout_s": 600}) as pool:
            player = Player(str(model), pool, turns, 1_003_520)
            records = [next(iter(read_records(data / "test.parquet").records))] * len(codes)
            calls = [player.tokenizer.encode(get_format("code").render_call(code)) for code in codes]
            sampled, turn = player._generate, iter(range(turns))
            player._generate = (  # type: ignore[method-assign]
                lambda attempts, sample: calls if next(turn) == 0 else sampled(attempts, sample)
            )
            return player, await player.play(records, sample=False)

    return asyncio.run(run())


@pytest.mark.timeout(300)
def test_a_rollout_that_got_images_back_goes_on_with_them(
    model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cold_start, "TURN_TOKENS", 4)
    player, (shown, printed) = play(model, data, [SHOWS, "print(1)"], turns=2)
    for attempt, images in ((shown, 3), (printed, 1)):
        assert attempt.succeeded[0] and attempt.answer is not None, "its second turn was sampled"
        grid = attempt.vision["image_grid_thw"]
        patches = int(grid.prod(-1).sum())
        assert len(grid) == images and len(attempt.vision["pixel_values"]) == patches
        assert attempt.tokens.count(player.image_token) == patches // 4
    text = player.tokenizer.decode(shown.tokens)
    assert text.count("<|vision_start|>") == 3 and "<tool_response>\n1\n<|vision_start|>" in text
    assert summarise([shown, printed])["overall"]["tool_rate"] == 1.0


@pytest.mark.timeout(300)
def test_images_beyond_the_limit_are_said_to_be_left_out(
    model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cold_start, "LIMITS", cold_start.LIMITS.replace(max_images=4))
    player, (attempt,) = play(
        model, data, ["for side in range(6):\n    input_image.crop((0, 0, 40, 40)).show()"], turns=1
    )
    assert len(attempt.vision["image_grid_thw"]) == 4
    assert "(3 further images are not shown" in player.tokenizer.decode(attempt.tokens)


@pytest.mark.timeout(300)
def test_the_whole_measurement_runs(model: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cold_start, "TURN_TOKENS", 4)
    found = asyncio.run(measure(str(model), data, questions=1, samples=2, max_turns=2, pixels=112 * 112))
    assert found["questions"] == 1 and set(found["greedy"]["overall"]) == {
        "accuracy",
        "tool_rate",
        "format",
        "execution_success",
    }


def test_the_tokens_of_an_image_are_those_of_the_chat_template() -> None:
    assert IMAGE_TOKENS in CHAT_TEMPLATE
