"""Settings of the judge (`grading.judge`)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import urlsplit

from codedance_verl.config.checks import check_known, check_number, check_whole
from codedance_verl.errors import UserError

_WHOLE = {"max_tokens": (32, 4096), "concurrency": (1, 1024), "attempts": (1, 20), "cache_entries": (0, 10_000_000)}
_NUMBERS = {
    "request_timeout_s": (0.1, 600.0),
    "total_timeout_s": (0.1, 3600.0),
    "first_pause_s": (0.01, 60.0),
    "longest_pause_s": (0.01, 600.0),
    "input_price": (0.0, 10_000.0),
    "output_price": (0.0, 10_000.0),
}


@dataclass(frozen=True)
class JudgeConfig:
    """Where the judge is and what asking it may take. The temperature is 0 and no setting.

    Attributes:
        endpoints: base URLs of OpenAI-compatible servers, "http://host:port/v1", all of the same model. Requests go to
            the one with the fewest under way. Empty: there is no judge.
        model: name of the model as the servers know it.
        api_key_env: environment variable of the rollout workers that holds the key; empty: none is sent.
        max_tokens: longest answer of the judge, 32 to 4096 tokens; a longer one is no verdict.
        concurrency: requests under way at once per rollout worker, 1 to 1024; further ones queue.
        attempts: how often one question is put before there is no verdict, 1 to 20.
        request_timeout_s: longest wait for one reply, 0.1 to 600 seconds.
        total_timeout_s: longest wait for a verdict, queueing and all attempts included, 0.1 to 3600 seconds.
        first_pause_s: how long an endpoint is left alone after a failure, 0.01 to 60 seconds; twice that after the next
            one, and so on, unless its reply says how long (Retry-After).
        longest_pause_s: the longest such pause, 0.01 to 600 seconds.
        cache_entries: verdicts remembered per rollout worker, 0 to 10 million; those of a run are also kept in
            `<run_dir>/judge` and read again when it resumes.
        input_price: price of a million prompt tokens, in any currency, for the cost that is reported; 0 to 10,000.
        output_price: the same for a million tokens that the judge writes.
    """

    endpoints: tuple[str, ...] = ()
    model: str = ""
    api_key_env: str = ""
    max_tokens: int = 256
    concurrency: int = 32
    attempts: int = 6
    request_timeout_s: float = 60.0
    total_timeout_s: float = 300.0
    first_pause_s: float = 0.5
    longest_pause_s: float = 30.0
    cache_entries: int = 100_000
    input_price: float = 0.0
    output_price: float = 0.0

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], node: str = "grading.judge") -> JudgeConfig:
        """Builds from the config node that stands at the dotted key `node`; absent keys take their default.

        Raises:
            UserError: names the dotted key, the value seen and what is allowed.
        """
        check_known(values, [item.name for item in fields(cls)], node)
        given: dict[str, Any] = {str(key): value for key, value in values.items()}
        given["endpoints"] = _endpoints(given.get("endpoints") or (), f"{node}.endpoints")
        for name in ("model", "api_key_env"):
            given[name] = "" if given.get(name) is None else given[name]
            if not isinstance(given[name], str):
                raise UserError(f"{node}.{name}={given[name]}: must be a text")
        for name, (least, most) in _WHOLE.items():
            if name in given:
                given[name] = check_whole(given[name], least, most, f"{node}.{name}")
        for name, (low, high) in _NUMBERS.items():
            if name in given:
                given[name] = check_number(given[name], low, high, f"{node}.{name}")
        if given["endpoints"] and not given["model"]:
            raise UserError(f"{node}.model: no value given; name the model that {node}.endpoints serve")
        return cls(**given)

    def headers(self) -> dict[str, str]:
        """What requests carry: the key, where there is one, without white space around it.

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


def _endpoints(value: Any, key: str) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise UserError(f"{key}={value}: must be a list of URLs such as [http://127.0.0.1:8200/v1]")
    for url in value:
        if not isinstance(url, str) or not _is_address(url):
            raise UserError(f"{key}={url!s:.200}: must be http:// or https:// URLs such as http://127.0.0.1:8200/v1")
    return tuple(url.rstrip("/") for url in value)


def _is_address(url: str) -> bool:
    """True if requests can be sent there: a scheme, a host, a port that is a number if there is one, no blanks."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    can_be_sent = url.isprintable() and " " not in url
    return can_be_sent and parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0
