"""Limits of the multi-turn environment (`conf/environment.yaml`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from codedance_verl.errors import UserError


@dataclass(frozen=True)
class EnvironmentConfig:
    """What one trajectory may use up.

    Attributes:
        max_turns: assistant turns per trajectory, 1 to 100 (the paper trains with 6, evaluates with 10). Code of the
            last turn is not run: the model could no longer read its feedback.
        max_images: images per trajectory, the question's own included, 1 to 1000. Further ones are left out of the
            observation; each costs prompt tokens and memory.
        save_trajectories: write every rollout to `<run_dir>/trajectories`.
    """

    max_turns: int = 6
    max_images: int = 16
    save_trajectories: bool = True

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> EnvironmentConfig:
        """Build from a config node.

        Raises:
            UserError: names the dotted key, the value seen and what is allowed.
        """
        known = [field.name for field in fields(cls)]
        for key in values:
            if key not in known:
                raise UserError(f"environment.{key}: unknown key; known are {', '.join(known)}")
        config = cls(**values)
        for name, low, high in (("max_turns", 1, 100), ("max_images", 1, 1000)):
            value = getattr(config, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise UserError(f"environment.{name}={value!r}: must be a whole number from {low} to {high}")
        return config
