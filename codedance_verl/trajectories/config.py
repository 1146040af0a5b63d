"""Which rollouts are written, and how much disk they may take (`conf/trajectories.yaml`)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from codedance_verl.config.checks import check_known, check_number, check_whole
from codedance_verl.errors import UserError

_SHARE = (0.0, 1.0)
_STEPS = (1, 1_000_000)
_GIB = (0.01, 1_000_000.0)


@dataclass(frozen=True)
class TrajectoriesConfig:
    """Attributes:
    train_share: share of the groups of training that are written, 0 to 1; a group is written whole or not at all.
    every_steps: write training groups of every so many-th step alone, 1 to 1,000,000.
    keep_faults: write every training group with a rollout that ended as `infrastructure`, whatever is drawn.
    max_gib: disk of the folder, 0.01 to 1,000,000 GiB; None for no limit. Over it the files of the oldest training
        steps go first, then pictures that no line names; what validation wrote stays.
    """

    train_share: float = 1.0
    every_steps: int = 1
    keep_faults: bool = True
    max_gib: float | None = 100.0

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> TrajectoriesConfig:
        """Build from a config node.

        Raises:
            UserError: names the dotted key, the value seen and what is allowed.
        """
        check_known(values, [field.name for field in fields(cls)], "trajectories")
        config = cls(**{str(key): value for key, value in values.items()})
        check_number(config.train_share, *_SHARE, "trajectories.train_share")
        check_whole(config.every_steps, *_STEPS, "trajectories.every_steps")
        if not isinstance(config.keep_faults, bool):
            raise UserError(f"trajectories.keep_faults={config.keep_faults}: must be true or false")
        if config.max_gib is not None:
            check_number(config.max_gib, *_GIB, "trajectories.max_gib")
        return config

    @property
    def max_bytes(self) -> int | None:
        return None if self.max_gib is None else int(self.max_gib * 2**30)

    def keeps(self, *, step: int, split: str, group: str, faulty: bool) -> bool:
        """Whether a group is written. Every worker decides alike; validation is always written: figures rest on it."""
        if split != "train" or (faulty and self.keep_faults):
            return True
        return step % self.every_steps == 0 and _chance(step, group) < self.train_share


def _chance(step: int, group: str) -> float:
    """A number in [0, 1) that a group has for good."""
    drawn = hashlib.sha256(f"{step}/{group}".encode()).digest()[:8]
    return int.from_bytes(drawn, "big") / 2**64
