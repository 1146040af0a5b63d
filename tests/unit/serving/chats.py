"""A service without vLLM and containers: turns and executions by script, the loop, processors and HTTP as they are."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from openai import AsyncOpenAI
from PIL import Image

from codedance_verl.environment.config import EnvironmentConfig
from codedance_verl.formats import get_format
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.serving.config import ServingConfig
from codedance_verl.serving.engine import Tokens
from codedance_verl.serving.server import listening
from codedance_verl.serving.service import Service
from codedance_verl.serving.settings import Settings
from codedance_verl.types import Execution, ExecutionStatus
from tests.unit.environment.harness import Say, picture, processor, tokenizer
from tests.unit.environment.pools import CountingPool

MODEL = "tiny"
CALL = get_format("code").render_call
SHOWN = picture(40, 30, 1)
SCRIPTS: Mapping[str, Sequence[str]] = {
    "glance": ["<think>so</think>\n<answer>7</answer>"],
    "look": [f"<think>so</think>\n{CALL('show')}", "<think>I see</think>\n<answer>3 &lt; 4</answer>"],
    "twice": [CALL("show"), CALL("show"), "<answer>two</answer>"],
    "die": [CALL("die"), "<answer>never</answer>"],
    "hang": [CALL("hang"), "<answer>never</answer>"],
    "broken": ["<code>no fence</code>", "<answer>sorry</answer>"],
    "mumble": ["<think>hm</think> it is a tram"],
    "endless": [CALL("show")] * 100,
}
"""Turns by a word of the question."""


def data_url(width: int = 40, height: int = 30, kind: str = "PNG") -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(buffer, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def messages(word: str, url: str | None = None) -> list[Any]:
    """A question whose script is that of a word."""
    image = {"type": "image_url", "image_url": {"url": url or data_url()}}
    return [{"role": "user", "content": [image, {"type": "text", "text": f"please {word}"}]}]


class ScriptedEngine:
    """Says the turns of the script that the last question names, token by token."""

    def __init__(self) -> None:
        processing = processor("qwen2_5_vl")
        self.tokens = Tokens(tokenizer(), processing, "qwen2_5_vl", (), max_model_len=2_000)
        self.prompts: list[list[int]] = []
        self.params: list[dict[str, Any]] = []
        self.alive = True

    async def check(self) -> None:
        if not self.alive:
            raise RuntimeError("gone")

    async def sample(
        self,
        prompt_ids: list[int],
        sampling_params: dict[str, Any],
        images: list[Any] | None,
        on_text: Callable[[str, list[int]], None],
    ) -> Any:
        self.prompts.append(list(prompt_ids))
        self.params.append(sampling_params)
        prompt = tokenizer().decode(prompt_ids, skip_special_tokens=False)
        question = prompt.rpartition("please ")[2]
        turns = next(turns for word, turns in SCRIPTS.items() if question.startswith(word))
        ids = Say(turns[question.count("<tool_response>")]).token_ids[: sampling_params["max_tokens"]]
        told = ""
        for end in range(1, len(ids) + 1):
            await asyncio.sleep(0)
            text = tokenizer().decode(ids[:end])
            on_text(text[len(told) :], ids[end - 1 : end])
            told = text
        return SimpleNamespace(token_ids=ids, log_probs=None, stop_reason="completed", extra_fields={})


class ScriptedPool(CountingPool):
    """Shows a picture, dies or hangs, as the code says."""

    def __init__(self) -> None:
        super().__init__()
        self.images: list[bytes] = []

    def admit(self, *images: bytes) -> None:
        self.images.extend(images)

    async def run(self, code: str) -> Execution:
        if code == "die":
            return Execution(ExecutionStatus.KILLED)
        if code == "hang":
            await asyncio.sleep(3600)
        return Execution(ExecutionStatus.OK, stdout="seen\n", images=(SHOWN,))


@dataclass
class Running:
    """A server under test, with what stands behind it."""

    url: str
    engine: ScriptedEngine
    pool: ScriptedPool
    client: AsyncOpenAI = field(init=False)

    def __post_init__(self) -> None:
        self.client = self.with_key("none")

    def with_key(self, key: str) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=self.url, api_key=key, max_retries=0, timeout=30.0)


def service_of(engine: Any, pool: Any, environment: Mapping[str, Any], **serving: Any) -> Service:
    settings = Settings(
        model="/nowhere/tiny",
        name=MODEL,
        origin=None,
        environment=EnvironmentConfig.from_mapping({"add_system_prompt": False, "sandbox_retries": 0, **environment}),
        sandbox=SandboxConfig(backend="process"),
        serving=ServingConfig.from_mapping({"port": 0, "response_tokens": 1_000, **serving}),
        warm_start=False,
        env_vars={},
    )
    return Service(settings, engine, pool)


@contextlib.asynccontextmanager
async def running(
    api_key: str | None = None, environment: Mapping[str, Any] | None = None, **serving: Any
) -> AsyncIterator[Running]:
    """A server on a free port; when it ends no session may be open."""
    engine, pool = ScriptedEngine(), ScriptedPool()
    async with listening(service_of(engine, pool, environment or {}, **serving), api_key) as url:
        under_test = Running(url, engine, pool)
        try:
            yield under_test
        finally:
            await under_test.client.close()
    assert pool.open_sessions == 0, "a session was left open"
