"""Libraries that the processes of a run have in common, for a fork server to import (`runtime.warm_start`).

All of them but Ray and what imports it: Ray's core reads the ids of its job and its node when it is loaded. A name that
is not there, or that needs an accelerator, is passed over: a process imports by itself what it does not find.
"""

from __future__ import annotations

import contextlib
import importlib
import sys

from codedance_verl.verl_compat.light_imports import skip_scikit_learn
from codedance_verl.verl_compat.vllm_cpu import answer_to_the_name_vllm

MODULES = (
    "torch.distributed.fsdp",
    "torch.distributed.checkpoint",
    "torchvision",
    "torchdata.stateful_dataloader",
    "tensordict",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.processing_auto",
    "accelerate",
    "peft",
    "datasets",
    "aiohttp",
    "hydra",
    "openai",
    "uvicorn",
    "fastapi",
    "zmq",
    "vllm._custom_ops",
    "vllm.config",
    "vllm.sampling_params",
    "vllm.v1.worker.cpu_worker",
    "vllm.v1.core.sched.scheduler",
    "vllm.v1.core.sched.async_scheduler",
    "vllm.model_executor.models.qwen2_5_vl",
    "vllm.model_executor.models.qwen3_vl",
    "vllm.model_executor.model_loader",
    "vllm.renderers",
)

skip_scikit_learn()
answer_to_the_name_vllm()
for name in MODULES:
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
if "ray" in sys.modules:
    raise RuntimeError("a library that codedance_verl.verl_compat.preloaded imports has imported Ray")
