"""Settings of the server and of `codedance chat` (`conf/serve.yaml`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from codedance_verl.config.node import Node, null_as
from codedance_verl.errors import UserError
from codedance_verl.runtime.loopback import is_loopback


class EngineConfig(Node):
    """Start of vLLM."""

    KEY: ClassVar[str] = "serving.engine"

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of the weights; `auto` is the model's own."""
    enforce_eager: bool = False
    """Leaves out compilation and CUDA graphs: a faster start and slower tokens."""
    tensor_parallel_size: int = Field(1, ge=1, le=1024)
    """GPUs that the model is spread over."""
    gpu_memory_utilization: float = Field(0.85, ge=0.05, le=1)
    """Share of a GPU's memory for weights and KV cache."""
    max_num_seqs: int = Field(256, ge=1, le=100_000)
    """Sequences in a batch."""
    distributed_executor_backend: str | None = None
    """Executor of vLLM; null for its own choice."""


class ServingConfig(Node):
    """Address of the server, limits of a request, and the engine."""

    KEY: ClassVar[str] = "serving"

    host: str = Field("127.0.0.1", min_length=1)
    """Address to listen on; another one than loopback needs a key."""
    port: int = Field(8300, ge=0, le=65_535)
    """Port to listen on; 0 for any free one."""
    model_name: str | None = None
    """Name of the model for clients; null for that of its folder or run."""
    settings_of: str | None = None
    """Run whose settings of training count, for a model that comes from SFT or was not trained here."""
    api_key_env: str = Field("CODEDANCE_API_KEY", min_length=1)
    """Environment variable that holds the key clients must send. A key that is set is always asked for."""
    response_tokens: int = Field(4096, ge=16, le=1_000_000)
    """Tokens of a trajectory behind its prompt, observations included."""
    max_model_len: int = Field(32_768, ge=64, le=10_000_000)
    """Tokens of prompt and trajectory together; lowered to the model's positions."""
    temperature: float = Field(0.0, ge=0, le=2)
    """Temperature of requests that name none."""
    code_temperature: float | None = Field(None, ge=0, le=2)
    """Temperature of the tokens of a call; null for that of all other tokens."""
    max_requests: int = Field(256, ge=1, le=100_000)
    """Requests in flight; further ones are refused."""
    max_request_mb: int = Field(64, ge=1, le=1024)
    """Largest request body in MiB."""
    max_image_pixels: int = Field(50_000_000, ge=28 * 28, le=1_000_000_000)
    """Pixels of one image."""
    max_request_pixels: int = Field(100_000_000, ge=28 * 28, le=100_000_000_000)
    """Pixels of all images of a request together."""
    engine: Annotated[EngineConfig, null_as({})] = Field(default_factory=EngineConfig)
    """Settings of vLLM."""

    @property
    def on_loopback(self) -> bool:
        """True where only this machine can send requests."""
        return is_loopback(self.host)

    def api_key(self, variables: Mapping[str, str]) -> str | None:
        """Key that clients must send, None where there is none.

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
