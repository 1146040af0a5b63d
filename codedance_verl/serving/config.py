"""Settings of the server and of `codedance chat` (`conf/serve.yaml`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from codedance_verl.config.checks import check_choice, check_known, check_number, check_whole
from codedance_verl.errors import UserError
from codedance_verl.runtime.loopback import is_loopback

_WHOLE = {
    "port": (0, 65_535),
    "response_tokens": (16, 1_000_000),
    "max_model_len": (64, 10_000_000),
    "max_requests": (1, 100_000),
    "max_request_mb": (1, 1024),
    "max_picture_pixels": (28 * 28, 1_000_000_000),
    "max_request_pixels": (28 * 28, 100_000_000_000),
}
_ENGINE_WHOLE = {"tensor_parallel_size": (1, 1024), "max_num_seqs": (1, 100_000)}
_DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class EngineConfig:
    """How vLLM is started.

    Attributes:
        dtype: `auto` (the model's own), `float32`, `bfloat16` or `float16`.
        enforce_eager: no compilation and no CUDA graphs: a faster start and slower tokens.
        tensor_parallel_size: GPUs that the model is spread over, 1 to 1024.
        gpu_memory_utilization: share of a GPU's memory for weights and KV cache, 0.05 to 1.
        max_num_seqs: sequences in a batch, 1 to 100,000.
        distributed_executor_backend: None for vLLM's choice.
    """

    dtype: str = "auto"
    enforce_eager: bool = False
    tensor_parallel_size: int = 1
    gpu_memory_utilization: float = 0.85
    max_num_seqs: int = 256
    distributed_executor_backend: str | None = None

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], node: str = "serving.engine") -> EngineConfig:
        """Build from the config node that stands at the dotted key `node`. Raises `UserError`."""
        check_known(values, [item.name for item in fields(cls)], node)
        config = cls(**{str(key): value for key, value in values.items()})
        check_choice(config.dtype, _DTYPES, f"{node}.dtype")
        check_number(config.gpu_memory_utilization, 0.05, 1.0, f"{node}.gpu_memory_utilization")
        for name, (least, most) in _ENGINE_WHOLE.items():
            check_whole(getattr(config, name), least, most, f"{node}.{name}")
        if not isinstance(config.enforce_eager, bool):
            raise UserError(f"{node}.enforce_eager={config.enforce_eager}: must be true or false")
        return config


@dataclass(frozen=True)
class ServingConfig:
    """Where the server listens, what a request may use up, and how vLLM is started.

    Attributes:
        host: address to listen on; another one than loopback needs a key.
        port: 0 to 65535; 0 for any free one.
        model_name: name of the model for clients; None for that of its folder or run.
        api_key_env: environment variable that holds the key clients must send. A key that is set is always asked for.
        response_tokens: tokens of a trajectory behind its prompt, feedback included, 16 to 1,000,000.
        max_model_len: tokens of prompt and trajectory together, 64 to 10 million; lowered to the model's positions.
        temperature: of requests that name none, 0 to 2.
        code_temperature: of the tokens of a call, 0 to 2; None for that of all other tokens.
        max_requests: requests under way at once, 1 to 100,000; further ones are refused.
        max_request_mb: largest request body, 1 to 1024 MiB.
        max_picture_pixels: of one picture, 784 to 1000 million.
        max_request_pixels: of all pictures of a request together, 784 to 100,000 million.
        engine: vLLM.
    """

    host: str = "127.0.0.1"
    port: int = 8300
    model_name: str | None = None
    api_key_env: str = "CODEDANCE_API_KEY"
    response_tokens: int = 4096
    max_model_len: int = 32_768
    temperature: float = 0.0
    code_temperature: float | None = None
    max_requests: int = 256
    max_request_mb: int = 64
    max_picture_pixels: int = 50_000_000
    max_request_pixels: int = 100_000_000
    engine: EngineConfig = field(default_factory=EngineConfig)

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can ask."""
        return is_loopback(self.host)

    def api_key(self, variables: Mapping[str, str]) -> str | None:
        """The key that clients must send, None where there is none.

        Raises:
            UserError: other machines could ask without one.
        """
        key = variables.get(self.api_key_env) or None
        if key is None and not self.on_loopback:
            raise UserError(
                f"serving.host={self.host}: other machines could run code through this server; set "
                f"{self.api_key_env} to a secret that clients send as their API key"
            )
        return key

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> ServingConfig:
        """Build from a config node.

        Raises:
            UserError: names the dotted key, the value seen and what is allowed.
        """
        check_known(values, [item.name for item in fields(cls)], "serving")
        given = {str(key): value for key, value in values.items()}
        config = cls(**{**given, "engine": EngineConfig.from_mapping(given.get("engine") or {})})
        for name in ("host", "api_key_env"):
            if not isinstance(getattr(config, name), str) or not getattr(config, name):
                raise UserError(f"serving.{name}={getattr(config, name)}: must be a text")
        if config.model_name is not None and not isinstance(config.model_name, str):
            raise UserError(f"serving.model_name={config.model_name}: must be a text")
        for name, (least, most) in _WHOLE.items():
            check_whole(getattr(config, name), least, most, f"serving.{name}")
        check_number(config.temperature, 0.0, 2.0, "serving.temperature")
        if config.code_temperature is not None:
            check_number(config.code_temperature, 0.0, 2.0, "serving.code_temperature")
        return config
