"""Imports and flash-attn's kernel: `python -m recipes.gpu_check.kernels`, which prints one line of JSON.

It runs in a process of its own, since a binary of another CUDA or torch may end the process that loads it.
"""

from __future__ import annotations

import importlib
import json
import sys
from importlib import metadata

import torch

PACKAGES = ("torch", "vllm", "verl", "ray", "transformers", "flash_attn")
LENGTHS = (7, 128, 33)
HEADS, HEAD_DIM = 4, 64


def main() -> int:
    found: dict[str, object] = {name: _version(name) for name in PACKAGES}
    if torch.cuda.is_available():
        found["cuda"], found["capability"] = torch.version.cuda, ".".join(map(str, torch.cuda.get_device_capability()))
        found["flash_attention_error"] = flash_attention_error()
    print(json.dumps(found))
    return 0


def _version(name: str) -> str:
    importlib.import_module(name)
    return metadata.version(name.replace("_", "-"))


def flash_attention_error(device: str = "cuda") -> float:
    """Largest difference of flash-attn's packed kernel, in bfloat16, from attention in float32; values are about 1."""
    from flash_attn import flash_attn_varlen_func

    generator = torch.Generator(device).manual_seed(0)
    total = sum(LENGTHS)
    # [tokens of all sequences, heads, dim]: the packed form, without padding
    q, k, v = (torch.randn(total, HEADS, HEAD_DIM, generator=generator, device=device) for _ in range(3))
    q, k, v = (tensor.bfloat16() for tensor in (q, k, v))
    # cumulative lengths: sequence i is rows ends[i] to ends[i + 1]
    ends = torch.tensor([0, *torch.tensor(LENGTHS).cumsum(0).tolist()], dtype=torch.int32, device=device)
    longest = max(LENGTHS)
    packed = flash_attn_varlen_func(q, k, v, ends, ends, longest, longest, causal=True)
    error, start = 0.0, 0
    for length in LENGTHS:
        part = slice(start, start + length)
        query, key, value = (tensor[part].float().transpose(0, 1) for tensor in (q, k, v))  # [heads, tokens, dim]
        wanted = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True).transpose(0, 1)
        error, start = max(error, (packed[part].float() - wanted).abs().max().item()), start + length
    return error


if __name__ == "__main__":
    sys.exit(main())
