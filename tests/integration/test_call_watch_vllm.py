"""Watches on requests of a real vLLM, on a CPU: answered before the request is, which samples the same either way.

The weights are random. A bias makes the tokens of the tag likely, so that nearly every turn holds it.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from recipes.cpu_demo import tiny_tokenizer
from recipes.cpu_demo.tiny_vlm import build_tiny_model
from tests.integration.test_controls_vllm import cpu_settings, demonstrations, vllm_of

__all__ = ["demonstrations"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TAG, REQUESTS, TOKENS = "<code>", 8, 200


@pytest.mark.parametrize("split", [False, True], ids=["a tag is a token", "a tag is split"])
def test_a_watch_is_answered_while_its_request_runs_and_changes_no_token(
    split: bool, demonstrations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in cpu_settings().env_vars.items():
        monkeypatch.setenv(name, value)
    if split:
        monkeypatch.setattr(tiny_tokenizer, "MARKUP_TOKENS", ())
    model = build_tiny_model(demonstrations, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(model)
    tag = tokenizer.encode(TAG, add_special_tokens=False)
    assert (len(tag) > 1) == split
    prompt = tokenizer.encode("<|im_start|>user\nHow many?<|im_end|>\n<|im_start|>assistant\n")

    async def run() -> None:
        async with vllm_of(model) as server:
            from vllm import SamplingParams, TokensPrompt

            from codedance_verl.verl_compat.watching_server import Watch, watched

            watches: dict[str, Watch] = {}

            async def sampled(index: int, run: str) -> tuple[list[int], str, float]:
                bias = dict.fromkeys(tag, 6.0 if split else 3.0)
                params: Any = SamplingParams(seed=index, max_tokens=TOKENS, ignore_eos=True, logit_bias=bias)
                prompted = TokensPrompt(prompt_token_ids=prompt)
                outputs = watched(
                    server._client.generate,
                    watches,
                    prompt=prompted,
                    sampling_params=params,
                    request_id=f"{index}{run}",
                )
                async for output in outputs:
                    last = output
                return list(last.outputs[0].token_ids), last.outputs[0].text, time.perf_counter()

            async def answered(watch: Watch) -> tuple[bool, float]:
                return await watch.sampled, time.perf_counter()

            plain = await asyncio.gather(*(sampled(index, "plain") for index in range(REQUESTS)))
            watches |= {f"{index}watched": Watch(TAG) for index in range(REQUESTS)}
            answers = [asyncio.create_task(answered(watch)) for watch in watches.values()]
            seen = await asyncio.gather(*(sampled(index, "watched") for index in range(REQUESTS)))
            assert [ids for ids, _, _ in seen] == [ids for ids, _, _ in plain]
            with_tag = [TAG in text for _, text, _ in seen]
            assert sum(with_tag) >= REQUESTS / 2
            await asyncio.sleep(0)
            assert [task.done() for task in answers] == with_tag
            for (_, _, ended), task, has_tag in zip(seen, answers, with_tag, strict=True):
                if has_tag:
                    told, at = task.result()
                    assert told and at < ended
            for task in answers:
                task.cancel()

    asyncio.run(run())
