from __future__ import annotations

from typing import Any

import pytest

from codedance_verl.errors import UserError
from codedance_verl.trajectories.config import TrajectoriesConfig


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"train_share": 1.1}, r"trajectories\.train_share=1\.1: must be a number from 0 to 1"),
        ({"every_steps": 0}, r"trajectories\.every_steps=0: must be a whole number from 1"),
        ({"keep_faults": "yes"}, r"trajectories\.keep_faults=yes: must be true or false"),
        ({"max_gib": 0}, r"trajectories\.max_gib=0: must be a number from 0\.01"),
        ({"nonsense": 1}, r"trajectories\.nonsense: unknown key"),
    ],
)
def test_bad_values_are_named(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        TrajectoriesConfig.from_mapping(values)


def test_a_share_of_the_groups_is_kept_and_always_the_same() -> None:
    config = TrajectoriesConfig(train_share=0.25)
    kept = [config.keeps(step=3, split="train", group=f"g{k}", faulty=False) for k in range(4000)]
    assert 0.22 < sum(kept) / len(kept) < 0.28
    assert kept == [config.keeps(step=3, split="train", group=f"g{k}", faulty=False) for k in range(4000)]


def test_validation_and_faults_are_kept_whatever_is_drawn() -> None:
    config = TrajectoriesConfig(train_share=0.0)
    assert config.keeps(step=1, split="val", group="g", faulty=False)
    assert config.keeps(step=1, split="train", group="g", faulty=True)
    assert not config.keeps(step=1, split="train", group="g", faulty=False)
    assert not TrajectoriesConfig(train_share=0.0, keep_faults=False).keeps(
        step=1, split="train", group="g", faulty=True
    )


def test_every_so_many_steps() -> None:
    config = TrajectoriesConfig(every_steps=5)
    assert [step for step in range(1, 12) if config.keeps(step=step, split="train", group="g", faulty=False)] == [5, 10]
