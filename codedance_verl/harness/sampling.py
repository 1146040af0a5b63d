"""Sampling of replies, as fields of a request: temperature, top-p, a seed of each sample, tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Sampling:
    """Sampling of an evaluation.

    Attributes:
        temperature: 0 to 2; None for the endpoint's own.
        top_p: above 0, to 1; None for the endpoint's own.
        seed: of the first sample of an item; the next sample has the next one. None sends none.
        max_tokens: of a trajectory; None for as many as the endpoint allows.
    """

    temperature: float | None = 0.0
    top_p: float | None = 1.0
    seed: int | None = None
    max_tokens: int | None = None

    def seed_of_sample(self, sample: int) -> int | None:
        """Seed of a sample, numbered from 0."""
        return None if self.seed is None else self.seed + sample

    def fields(self, seed: int | None) -> dict[str, Any]:
        """Fields of a request but for `max_tokens`."""
        values = {"temperature": self.temperature, "top_p": self.top_p, "seed": seed}
        return {name: value for name, value in values.items() if value is not None}


def defaults_of(temperature: float | None, identity: Mapping[str, Any]) -> dict[str, Any]:
    """Limits to add to the key: the temperature of a server that is left to choose it, by its identity."""
    return {} if temperature is not None else {"temperature": identity["sampling"]["temperature"]}
