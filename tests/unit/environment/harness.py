"""A trajectory without vLLM and containers: scripted turns and executions, real processors, verl's token builder."""

from __future__ import annotations

import asyncio
import copy
import functools
import hashlib
import io
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from omegaconf import DictConfig, OmegaConf
from PIL import Image
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLProcessor,
)
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput, DictConfigWrap, ToolListWrap
from verl.trainer.ppo.v1 import agent_loop_tq
from verl.utils import hf_processor
from verl.utils.dataset.rl_dataset import RLHFDataset

from codedance_verl.config.compose import compose_config
from codedance_verl.rollout import agent_loop as module
from codedance_verl.rollout.agent_loop import CodeDanceAgentLoop
from codedance_verl.rollout.group_scorer import GroupScorer
from codedance_verl.rollout.worker import CodeDanceAgentLoopWorker
from codedance_verl.sandbox.errors import SandboxUnavailable
from codedance_verl.types import Execution, ExecutionStatus, RenderedImage
from recipes.cpu_demo.tiny_tokenizer import CHAT_TEMPLATE, train_tokenizer
from tests.unit.environment.pools import CountingPool

FAMILIES = ("qwen2_5_vl", "qwen3_vl")
_TEXT = "user assistant print numpy image count the red circles. <think>so</think> def f(x): return x + 1\n" * 20


@functools.cache
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer([_TEXT], vocabulary=400)


_folders = tempfile.TemporaryDirectory()  # of the processors; removed with the process


@functools.cache
def model_folder(family: str) -> Path:
    """Folder of a model without weights: a real processor of the family, with a small tokenizer and small images."""
    names = ("image", "video", "vision_start", "vision_end")
    tokens = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    ids = dict(
        zip((f"{name}_token_id" for name in names), tokenizer().convert_tokens_to_ids(list(tokens)), strict=True)
    )
    kinds: dict[str, tuple[Any, ...]] = {
        "qwen2_5_vl": (Qwen2_5_VLProcessor, Qwen2VLVideoProcessor, Qwen2_5_VLConfig, 14),
        "qwen3_vl": (Qwen3VLProcessor, Qwen3VLVideoProcessor, Qwen3VLConfig, 16),
    }
    kind, videos, config, patch = kinds[family]
    images = Qwen2VLImageProcessor(min_pixels=16 * patch**2, max_pixels=64 * patch**2, patch_size=patch)
    folder = Path(_folders.name) / family
    kind(
        image_processor=images, tokenizer=tokenizer(), video_processor=videos(), chat_template=CHAT_TEMPLATE
    ).save_pretrained(folder)
    architecture = kind.__name__.replace("Processor", "ForConditionalGeneration")
    config(**ids, architectures=[architecture]).save_pretrained(folder)
    return folder


@functools.cache
def processor(family: str) -> Any:
    """The processor of `model_folder` as verl loads it."""
    return hf_processor(str(model_folder(family)))


def picture(width: int, height: int, shade: int = 0) -> RenderedImage:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (shade, 90, 160)).save(buffer, "PNG")
    png = buffer.getvalue()
    return RenderedImage(hashlib.sha256(png).hexdigest(), width, height, png)


@dataclass(frozen=True)
class Say:
    """A turn that the model samples: text, with the names of special tokens after it, and whether it is aborted.

    Names of special tokens in the text are typed, letter by letter.
    """

    text: str
    specials: tuple[str, ...] = ()
    aborted: bool = False

    @property
    def token_ids(self) -> list[int]:
        first, *others = self.text.split("<|")
        pieces = [first, *(piece for other in others for piece in ("<", "|" + other))]
        ids = [token for piece in pieces for token in tokenizer().encode(piece, add_special_tokens=False)]
        return [*ids, *tokenizer().convert_tokens_to_ids(list(self.specials))]


@dataclass
class Script:
    """What the model says and the sandbox answers, call by call; a `None` execution is a refusal for good."""

    says: Sequence[Say]
    executions: Sequence[Execution | None] = ()
    pictures: Sequence[tuple[int, int]] = ((40, 30),)
    question: str = "How many?"
    family: str = "qwen2_5_vl"
    response_length: int = 2_000
    environment: dict[str, Any] = field(default_factory=dict)
    sampling: dict[str, Any] = field(default_factory=dict)
    extra_info: dict[str, Any] = field(default_factory=dict)


@dataclass
class Played:
    """The output, and what the model was given and gave: per turn the prompt, the sampled tokens and log-probs.

    `asked` are the sampling parameters of each request, `seen` its images.
    """

    output: AgentLoopOutput
    prompts: list[list[int]]
    sampled: list[list[int]]
    logprobs: list[list[float]]
    shown: list[int]
    codes: list[str]
    seeds: list[int | None]
    asked: list[dict[str, Any]]
    seen: list[list[Image.Image]]


class _Model:
    """Says the turns of the script, as vLLM would: no more tokens than allowed."""

    def __init__(self, script: Script) -> None:
        self._says = iter(script.says)
        self._random = random.Random(0)
        self.prompts: list[list[int]] = []
        self.sampled: list[list[int]] = []
        self.logprobs: list[list[float]] = []
        self.shown: list[int] = []
        self.seeds: list[int | None] = []
        self.asked: list[dict[str, Any]] = []
        self.seen: list[list[Image.Image]] = []

    async def generate(
        self, request_id: str, prompt_ids: list[int], sampling_params: dict[str, Any], image_data: Any
    ) -> Any:
        say = next(self._says, Say("<answer>1</answer>"))
        ids = say.token_ids[: sampling_params["max_tokens"]]
        self.prompts.append(list(prompt_ids))
        self.sampled.append(ids)
        self.logprobs.append([-self._random.random() for _ in ids])
        self.shown.append(len(image_data or []))
        self.seeds.append(sampling_params.get("seed"))
        self.asked.append(dict(sampling_params))
        self.seen.append(list(image_data or []))
        reason = "aborted" if say.aborted else "completed"
        return SimpleNamespace(token_ids=ids, log_probs=self.logprobs[-1], stop_reason=reason, extra_fields={})


class _Pool(CountingPool):
    """Answers calls with the executions of the script."""

    def __init__(self, script: Script) -> None:
        super().__init__()
        self._executions = iter(script.executions)
        self.codes: list[str] = []

    async def run(self, code: str) -> Execution:
        self.codes.append(code)
        execution = next(self._executions, Execution(ExecutionStatus.NO_OUTPUT))
        if execution is None:
            raise SandboxUnavailable("refused by the script")
        return execution


@functools.cache
def _training(family: str) -> DictConfig:
    filled = [f"data.{kind}_files=none" for kind in ("train", "val")]
    model = f"actor_rollout_ref.model.path={model_folder(family)}"
    return compose_config("train", ["hardware=cpu", "recipe=cpu_demo", "run_dir=none", *filled, model])


def worker_of(family: str, scorer: GroupScorer | None = None, **changes: Any) -> Any:
    """A rollout worker that joins no queue of verl's and writes no log, with changes to the configuration by key."""
    config = copy.deepcopy(_training(family))
    for key, value in {"environment.save_trajectories": False, **changes}.items():
        OmegaConf.update(config, key, value)
    with mock.patch.object(agent_loop_tq.tq, "init"):
        return CodeDanceAgentLoopWorker(config, None, scorer=scorer)


@functools.cache
def tensor_worker(family: str) -> Any:
    """The worker that turns outputs into tensors; one for all tests, as that changes nothing in it."""
    return worker_of(family)


def loop_of(script: Script, model: Any) -> CodeDanceAgentLoop:
    """The agent loop as verl's worker would build it."""
    config = OmegaConf.create(
        {
            "environment": {"add_system_prompt": False, "sandbox_retries": 0, **script.environment},
            "sampling": script.sampling,
            "sandbox": {},
            "actor_rollout_ref": {"rollout": {"prompt_length": 4_096, "response_length": script.response_length}},
            "data": {},
        }
    )
    return CodeDanceAgentLoop(
        trainer_config=DictConfigWrap(config),
        server_manager=model,
        tokenizer=tokenizer(),
        processor=processor(script.family),
        hf_model_type=script.family,
        dataset_cls=RLHFDataset,
        data_config=DictConfigWrap(config.data),
        tools=ToolListWrap([]),
    )


def play(script: Script, seed: int | None = None) -> Played:
    """Roll out the script; with a seed as in a deterministic run."""
    return asyncio.run(play_async(script, {} if seed is None else {"seed": seed}))


async def play_async(script: Script, sampling_params: dict[str, Any] | None = None) -> Played:
    model, pool = _Model(script), _Pool(script)
    content: list[dict[str, Any]] = [
        {"type": "image", "image": Image.new("RGB", size, "teal")} for size in script.pictures
    ]
    messages = [{"role": "user", "content": [*content, {"type": "text", "text": script.question}]}]
    with mock.patch.object(module.SandboxPool, "connect", return_value=pool):
        output = await loop_of(script, model).run(
            sampling_params or {},
            raw_prompt=messages,
            reward_model={"ground_truth": "1"},
            data_source="test",
            extra_info={"record_id": "test-0", **script.extra_info},
        )
    assert pool.open_sessions == 0, "a session was left open"
    return Played(
        output,
        model.prompts,
        model.sampled,
        model.logprobs,
        model.shown,
        pool.codes,
        model.seeds,
        model.asked,
        model.seen,
    )
