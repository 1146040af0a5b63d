"""Settings of the judge (`grading.judge`)."""

from __future__ import annotations

import os
from typing import Annotated, ClassVar, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from codedance_verl.config.node import NO_VALUE, Allowed, KeyFault, Node, null_as
from codedance_verl.errors import UserError


def _check_url(url: str) -> str:
    if not _is_address(url):
        raise ValueError("must be http:// or https:// URLs such as http://127.0.0.1:8200/v1")
    return url.rstrip("/")


def _is_address(url: str) -> bool:
    """True where requests can be sent there: a scheme, a host, no blanks, a port that is a number if there is one."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    can_be_sent = url.isprintable() and " " not in url
    return can_be_sent and parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0


Urls = Annotated[
    tuple[Annotated[str, AfterValidator(_check_url)], ...],
    Field(strict=False),  # a validator before it makes JSON's list one of Python, which strict ones take for no tuple
    null_as(()),
    Allowed("a list of URLs such as [http://127.0.0.1:8200/v1]"),
]


class JudgeConfig(Node):
    """Place of the judge, and limits of asking it. The temperature is 0 and no setting."""

    KEY: ClassVar[str] = "grading.judge"

    endpoints: Urls = ()
    """Base URLs of OpenAI-compatible servers of one model; the one with the fewest requests in flight is asked. Empty:
    there is no judge."""
    model: Annotated[str, null_as("")] = ""
    """Name of the model as the servers know it."""
    api_key_env: Annotated[str, null_as("")] = ""
    """Environment variable of the rollout workers that holds the key; empty: none is sent."""
    max_tokens: int = Field(256, ge=32, le=4096)
    """Longest answer of the judge in tokens; a longer one is no verdict."""
    concurrency: int = Field(32, ge=1, le=1024)
    """Requests in flight per rollout worker; further ones queue."""
    attempts: int = Field(6, ge=1, le=20)
    """Requests about one question before there is no verdict."""
    request_timeout_s: float = Field(60.0, ge=0.1, le=600)
    """Longest wait for one reply in seconds."""
    total_timeout_s: float = Field(300.0, ge=0.1, le=3600)
    """Longest wait for a verdict in seconds, queueing and all attempts included."""
    first_pause_s: float = Field(0.5, ge=0.01, le=60)
    """Seconds without requests to an endpoint after a failure, unless its reply names them (Retry-After); they double
    with every failure in a row."""
    longest_pause_s: float = Field(30.0, ge=0.01, le=600)
    """Longest such pause in seconds."""
    cache_entries: int = Field(100_000, ge=0, le=10_000_000)
    """Verdicts remembered per rollout worker; those of a run are also kept in `<run_dir>/judge` for its resume."""
    input_price: float = Field(0.0, ge=0, le=10_000)
    """Price of a million prompt tokens, in any currency, for the cost that is reported."""
    output_price: float = Field(0.0, ge=0, le=10_000)
    """Price of a million tokens that the judge writes."""

    @model_validator(mode="after")
    def _check_model_is_named(self) -> Self:
        if self.endpoints and not self.model:
            text = "no value given; name the model that grading.judge.endpoints serve"
            raise KeyFault("model", NO_VALUE, text)
        return self

    def headers(self) -> dict[str, str]:
        """Headers of a request: the key, where there is one, without white space around it.

        Raises:
            UserError: the key cannot stand in a header; names the variable and not what it holds.
        """
        key = os.environ.get(self.api_key_env, "").strip() if self.api_key_env else ""
        if not all("!" <= char <= "~" for char in key):
            raise UserError(
                f"grading.judge.api_key_env={self.api_key_env}: the variable holds a blank or a character that no key "
                "has; set it to the key alone"
            )
        return {"Authorization": f"Bearer {key}"} if key else {}
