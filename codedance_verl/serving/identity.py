"""Identity of what is served: everything that decides about replies, as `GET /v1/codedance` states it.

Two servers with equal `model`, `prompt` and `limits` give equally distributed replies to equal requests. `capacity` is
about speed and refusals.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from codedance_verl.config.node import Node
from codedance_verl.environment.config import EnvironmentConfig
from codedance_verl.environment.system_prompt import instructions
from codedance_verl.formats import get_format
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.serving.engine import Tokens
from codedance_verl.serving.settings import OF_THE_SANDBOX, Settings

BLOCKS, BLOCK_BYTES = 64, 1 << 16
"""Blocks of a weight file that its digest reads, evenly spread, and the bytes of each."""

_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf")
_PROCESSING = (
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "spiece.model",
    "added_tokens.json",
    "special_tokens_map.json",
    "*processor_config.json",
)
"""Files that decide how texts become tokens, and images patches."""

_OF_THE_ENVIRONMENT = (
    "max_turns",
    "max_images",
    "max_image_pixels",
    "max_observation_chars",
    "min_answer_tokens",
    "trajectory_limit_s",
)


def identity(settings: Settings, tokens: Tokens) -> dict[str, Any]:
    """Returns the identity as a value of JSON. Reads up to 4 MiB of each weight file; call it in a thread.

    Raises:
        OSError: a file of the model has gone.
    """
    environment, serving = settings.environment, settings.serving
    return {
        "model": model_of(settings, tokens),
        "prompt": prompt_of(environment) | {"chat_template_sha256": _text_sha256(_template(tokens))},
        "limits": {
            **limits_of(environment, settings.sandbox),
            "response_tokens": serving.response_tokens,
            "max_model_len": tokens.max_model_len,
            "code_temperature": serving.code_temperature,  # no request can change it
        },
        "sampling": {"temperature": serving.temperature, "top_p": 1.0},
        "capacity": {
            "max_requests": serving.max_requests,
            "max_request_mb": serving.max_request_mb,
            "max_image_pixels": serving.max_image_pixels,
            "max_request_pixels": serving.max_request_pixels,
        },
    }


def model_of(settings: Settings, tokens: Tokens) -> dict[str, Any]:
    """Returns name and type of the model, type of its numbers, and digests of its files; null where none are found.

    The digest of the weights covers names, sizes and 64 blocks of 64 KiB of each file: enough to tell steps of a
    training apart without reading every byte, and no proof against a forged file.
    """
    folder = _folder(settings.model)
    return {
        "name": settings.name,
        "type": tokens.model_type,
        "dtype": settings.serving.engine.dtype,
        "config_sha256": None if folder is None else _file_sha256(folder / "config.json"),
        "processing_sha256": None if folder is None else processing_sha256(folder),
        "weights_sha256": None if folder is None else weights_sha256(folder),
    }


def prompt_of(environment: EnvironmentConfig) -> dict[str, Any]:
    """Returns the format of calls, and the digest of our system message; null where none is added."""
    # with several images it has a further sentence, which the digest covers
    ours = [instructions(get_format(environment.format), images) for images in (1, 2)]
    return {
        "format": environment.format,
        "system_prompt_sha256": _text_sha256("\n".join(ours)) if environment.add_system_prompt else None,
    }


def limits_of(environment: EnvironmentConfig, sandbox: SandboxConfig) -> dict[str, Any]:
    """Returns the limits of a trajectory and of its code, under `environment` and `sandbox`."""
    return {
        "environment": _chosen(environment, _OF_THE_ENVIRONMENT),
        "sandbox": _chosen(sandbox, OF_THE_SANDBOX),
    }


def weights_sha256(folder: Path) -> str | None:
    """Returns the digest (hex) of the weight files of a folder, by their names; None where there are none."""
    return _files_sha256(_files(folder, _WEIGHTS), _blocks)


def processing_sha256(folder: Path) -> str | None:
    """Returns the digest (hex) of the files of tokenizer and image processor, whole; None where there are none."""
    return _files_sha256(_files(folder, _PROCESSING), lambda path: [path.read_bytes()])


def _files(folder: Path, patterns: Sequence[str]) -> list[Path]:
    return sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})


def _files_sha256(files: Sequence[Path], blocks: Callable[[Path], Iterable[bytes]]) -> str | None:
    """Returns the digest of names, sizes and the blocks that are read of files; None without any."""
    if not files:
        return None
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.name}:{path.stat().st_size}:".encode())
        for block in blocks(path):
            digest.update(block)
    return digest.hexdigest()


def _blocks(path: Path) -> Iterator[bytes]:
    """Yields a file whole, if its blocks would be no less, else its blocks, the first and last bytes included."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= BLOCKS * BLOCK_BYTES:
            yield file.read()
            return
        for number in range(BLOCKS):
            file.seek(number * (size - BLOCK_BYTES) // (BLOCKS - 1))
            yield file.read(BLOCK_BYTES)


def _folder(model: str) -> Path | None:
    """Returns the folder of a model: itself, or its snapshot in the cache of the Hub; None where it is not found."""
    if (Path(model) / "config.json").is_file():
        return Path(model)
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(model, "config.json")
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


def _template(tokens: Tokens) -> str:
    template = getattr(tokens.processor, "chat_template", None) or getattr(tokens.tokenizer, "chat_template", None)
    return template if isinstance(template, str) else json.dumps(template, sort_keys=True)


def _chosen(node: Node, keys: tuple[str, ...]) -> dict[str, Any]:
    values = node.model_dump(mode="json")
    return {key: values[key] for key in keys}


def _file_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _text_sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
