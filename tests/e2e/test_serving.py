"""What was trained is exported, loads elsewhere, and is asked: over HTTP by OpenAI's client, and in the terminal.

The checkpoint's weights are merged from its shards; a real vLLM serves them, with real containers behind it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import shutil
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from docker import DockerClient
from openai import AsyncOpenAI, OpenAI
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from codedance_verl.data.schema import Record, read_records
from recipes.cpu_demo.processes import ProcessTree
from tests.e2e.conftest import REPOSITORY, SFT_STEPS, ColdStart, run_main
from tests.e2e.runs import containers

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(1200)]

START_SECONDS = 600.0
SETTINGS = (
    "hardware=cpu",
    "sandbox.backend=docker",
    "sandbox.containers=1",
    "sandbox.standby_containers=0",
    "environment.add_system_prompt=false",  # its SFT data has none
    "environment.max_turns=3",
    "serving.max_model_len=2048",
    "serving.response_tokens=352",
)


@dataclass(frozen=True)
class Served:
    """A running server: its base URL and log, the model it serves, and questions for it."""

    url: str
    log: Path
    model: Path
    records: tuple[Record, ...]

    @property
    def options(self) -> dict[str, Any]:
        return {"base_url": self.url, "api_key": "none", "max_retries": 0, "timeout": 120.0}


@pytest.fixture(scope="module")
def exported(cold_start: ColdStart, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cold start's checkpoint, its weights left out, as a folder of its own."""
    run = tmp_path_factory.mktemp("run")
    checkpoint = f"checkpoints/global_step_{SFT_STEPS}"
    shutil.copytree(cold_start.sft / checkpoint, run / checkpoint)
    (run / checkpoint / "huggingface" / "model.safetensors").unlink()
    out = run / "exported"
    done = run_main("codedance_verl.cli", "export", str(run), str(out), "--step", str(SFT_STEPS))
    assert done.returncode == 0 and f"exported: {out}" in done.stdout
    return out


@pytest.fixture(scope="module")
def served(
    exported: Path, cold_start: ColdStart, sandbox_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    log = tmp_path_factory.mktemp("server") / "server.log"
    command = [sys.executable, "-m", "codedance_verl.cli", "serve", "--model", str(exported), "serving.port=0"]
    server = ProcessTree([*command, *SETTINGS], log, os.environ, REPOSITORY)
    try:
        yield Served(_url(server, log), log, exported, read_records(cold_start.data / "test.parquet").records)
    finally:
        server.end(grace_s=20.0)


def _url(server: ProcessTree, log: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.wait(0.5) is None:
        if found := re.search(r"^serving exported at (http://\S+/v1), no key", log.read_text(), re.MULTILINE):
            return found.group(1)
    pytest.fail("the server did not start:\n" + log.read_text()[-4000:])


def _messages(record: Record) -> list[Any]:
    url = f"data:image/png;base64,{base64.b64encode(record.images[0]).decode()}"
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": record.question}]
    return [{"role": "user", "content": parts}]


def _of_variant(records: tuple[Record, ...], variant: str) -> list[Record]:
    return [record for record in records if record.extra_info["variant"] == variant]


def test_the_merged_weights_are_those_of_training(exported: Path, cold_start: ColdStart) -> None:
    """Rounded to bfloat16, as verl merges them."""
    merged, trained = (load_file(folder / "model.safetensors") for folder in (exported, cold_start.model))
    assert merged.keys() == trained.keys()
    for name, weights in trained.items():
        assert torch.equal(merged[name], weights.bfloat16()), name


def test_transformers_and_vllm_say_the_same_tokens(served: Served) -> None:
    """The first turn of 20 questions with pictures, greedy, float32: prompts and turns agree to the last token."""
    processor = AutoProcessor.from_pretrained(served.model)
    model = AutoModelForImageTextToText.from_pretrained(served.model, dtype=torch.float32).eval()
    client = OpenAI(**served.options)
    for record in _of_variant(served.records, "greedy")[:20]:
        reply: Any = client.chat.completions.create(
            model="exported", messages=_messages(record), temperature=0, extra_body={"return_token_ids": True}
        )
        told = reply.choices[0].message.codedance
        content = [{"type": "image"}, {"type": "text", "text": record.question}]
        text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        inputs = processor(text=[text], images=list(record.load_images()), return_tensors="pt")
        assert inputs["input_ids"][0].tolist() == told["prompt_token_ids"]
        turn = told["turn_token_ids"][0]
        said = model.generate(**inputs, do_sample=False, max_new_tokens=len(turn))
        assert said[0, len(told["prompt_token_ids"]) :].tolist() == turn, record.record_id


def test_32_clients_at_once(served: Served) -> None:
    """Half of them stream. Code ran, its output and pictures came, and nobody got another's reply."""

    async def ask(client: AsyncOpenAI, record: Record, stream: bool) -> dict[str, Any]:
        options: Any = {"model": "exported", "messages": _messages(record), "temperature": 0, "stream": stream}
        reply: Any = await client.chat.completions.create(**options)
        if not stream:
            message = reply.choices[0].message
            return {"content": message.content, "images": message.images, **message.codedance}
        result: dict[str, Any] = {"content": "", "images": [], "turns": []}
        async for chunk in reply:
            delta = chunk.choices[0].delta
            more = dict(getattr(delta, "codedance", {}))
            result["content"] += delta.content or ""
            result["images"] += getattr(delta, "images", [])
            result["turns"] += more.pop("turns", [])
            result.update(more)
        return result

    async def all_at_once() -> list[dict[str, Any]]:
        async with AsyncOpenAI(**served.options) as client:
            asked = [records[index % len(records)] for index in range(32)]
            return await asyncio.gather(*(ask(client, record, index % 2 == 0) for index, record in enumerate(asked)))

    records = _of_variant(served.records, "greedy")
    replies = asyncio.run(all_at_once())
    assert len(replies) == 32
    for reply in replies:
        assert reply["finish"] in ("answer", "no_action", "turn_limit", "length")
        assert (reply["answer"] is not None) == (reply["finish"] == "answer")
        assert reply["answer"] is None or reply["content"] == reply["answer"]
    ran = [turn["execution"] for reply in replies for turn in reply["turns"] if turn["execution"]]
    assert any(execution["status"] == "ok" and execution["stdout"].strip() for execution in ran)
    pictures = [image for reply in replies for image in reply["images"]]
    assert sum(len(execution["images"]) for execution in ran) == len(pictures) > 0
    for image in pictures:
        png = base64.b64decode(image["image_url"]["url"].removeprefix("data:image/png;base64,"))
        assert png.startswith(b"\x89PNG")


def test_clients_that_leave_leave_nothing_behind(served: Served) -> None:
    async def leave() -> None:
        async with AsyncOpenAI(**served.options) as client:
            for record in _of_variant(served.records, "sampled")[:4]:
                stream = await client.chat.completions.create(
                    model="exported", messages=_messages(record), stream=True, temperature=1
                )
                await anext(aiter(stream))
                await stream.close()

    asyncio.run(leave())
    health = served.url.replace("/v1", "/health")
    deadline = time.monotonic() + 30
    while True:
        with urllib.request.urlopen(health, timeout=10) as reply:
            state = json.load(reply)
        if state["requests_in_flight"] == 0:
            break
        assert time.monotonic() < deadline, state
        time.sleep(0.2)
    assert state["status"] == "ok"


def test_chat_in_the_terminal(served: Served, docker_engine: DockerClient, tmp_path: Path) -> None:
    """It calls, shows the picture that its code displayed, and answers, as the server's reply has it."""
    client = OpenAI(**served.options)
    for record in _of_variant(served.records, "greedy"):
        if record.extra_info["kind"] not in ("look", "look_large"):
            continue
        reply: Any = client.chat.completions.create(model="exported", messages=_messages(record), temperature=0)
        message = reply.choices[0].message
        if message.images and message.content:
            break
    else:
        pytest.fail("no question made the model show a picture")
    picture, shown = tmp_path / "question.png", tmp_path / "shown"
    picture.write_bytes(record.images[0])
    own = set(containers(docker_engine))
    arguments = [str(picture), record.question, "--model", str(served.model), "--output", str(shown)]
    done = run_main("codedance_verl.cli", "chat", *arguments, *SETTINGS)
    assert done.returncode == 0
    assert "code" in done.stdout and "input_image" in done.stdout
    assert "answer" in done.stdout and message.content in done.stdout
    (stored,) = shown.glob("*.png")
    assert base64.b64encode(stored.read_bytes()).decode() in message.images[0]["image_url"]["url"]
    assert stored.name in done.stdout
    assert set(containers(docker_engine)) <= own, "chat left a container"
