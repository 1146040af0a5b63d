"""Sampling and disk use of the trajectory log (`conf/trajectories.yaml`)."""

from __future__ import annotations

import hashlib
from typing import ClassVar

from pydantic import Field

from codedance_verl.config.node import Node


class TrajectoriesConfig(Node):
    """Share of the rollouts that is written, and limit of the disk they take."""

    KEY: ClassVar[str] = "trajectories"

    train_share: float = Field(1.0, ge=0, le=1)
    """Share of the groups of training that are written; a group is written whole or not at all."""
    every_steps: int = Field(1, ge=1, le=1_000_000)
    """Steps from one whose training groups are written to the next such."""
    keep_faults: bool = True
    """Writes every training group with a rollout that ended as `infrastructure`, whatever is drawn."""
    max_gib: float | None = Field(100.0, ge=0.01, le=1_000_000)
    """Disk of the folder in GiB, null for no limit. Over it the files of the oldest training steps go first, then
    images that no line names; what validation wrote stays."""

    @property
    def max_bytes(self) -> int | None:
        return None if self.max_gib is None else int(self.max_gib * 2**30)

    def keeps(self, *, step: int, split: str, group: str, faulty: bool) -> bool:
        """True where a group is written: every worker decides alike, and validation is always written."""
        if split != "train" or (faulty and self.keep_faults):
            return True
        return step % self.every_steps == 0 and _chance(step, group) < self.train_share


def _chance(step: int, group: str) -> float:
    """Number in [0, 1) that a group has in every worker: drawing by a seed would depend on the order of groups."""
    drawn = hashlib.sha256(f"{step}/{group}".encode()).digest()[:8]
    return int.from_bytes(drawn, "big") / 2**64
