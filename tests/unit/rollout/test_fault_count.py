from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from codedance_verl.rollout.fault_count import MaskedGroupCount, TooManyFaults
from codedance_verl.types import RewardTerms


def group(*masked: bool) -> list[RewardTerms]:
    return [RewardTerms(0.0, 0.0, 0.0, 0.0, 0.0, (), masked=value) for value in masked]


def of_run(most: int | None, filtered: bool) -> MaskedGroupCount:
    return MaskedGroupCount.of_run(
        OmegaConf.create(
            {
                "monitors": {"max_masked_steps": most},
                "algorithm": {"filter_groups": {"enable": filtered}},
                "data": {"train_batch_size": 5},
                "actor_rollout_ref": {"rollout": {"agent": {"num_workers": 2}}},
            }
        )
    )


def test_the_group_filter_draws_for_masked_groups_no_more_than_the_steps_that_may_be_masked() -> None:
    count = of_run(2, filtered=True)
    for _ in range(5):  # a worker has 3 of the 5 groups of a step
        count.add(group(True, True))
    with pytest.raises(TooManyFaults, match=r"^monitors\.max_masked_steps=2: of 6 groups in a row no rollout counts"):
        count.add(group(True, True))


def test_a_group_in_which_one_counts_begins_the_count_anew() -> None:
    count = of_run(1, filtered=True)
    for _ in range(4):
        count.add(group(True, True))
        count.add(group(True, True))
        count.add(group(True, False))


@pytest.mark.parametrize(("most", "filtered"), [(None, True), (1, False)])
def test_there_is_no_bound_without_the_filter_or_the_limit(most: int | None, filtered: bool) -> None:
    count = of_run(most, filtered)
    for _ in range(100):
        count.add(group(True))
