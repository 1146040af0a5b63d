"""Seeds of rollouts in a deterministic run: each request to the engine has one that follows from what it is for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any


def seed_of(*parts: object) -> int:
    """A seed, 0 to 2^63 - 1, that depends on every part and on nothing else."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def for_part(sampling_params: Mapping[str, Any], part: object) -> dict[str, Any]:
    """The sampling parameters with a seed of their own for a part of the rollout, if they have one at all."""
    if sampling_params.get("seed") is None:
        return dict(sampling_params)
    return {**sampling_params, "seed": seed_of(sampling_params["seed"], part)}
