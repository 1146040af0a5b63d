from __future__ import annotations

from typing import Any

import pytest
from omegaconf import OmegaConf

from codedance_verl.rollout.fault_count import MaskedGroupCount, TooManyFaults
from codedance_verl.types import RewardTerms


def group(*masked: bool) -> list[RewardTerms]:
    return [RewardTerms(0.0, 0.0, 0.0, 0.0, 0.0, (), masked=value) for value in masked]


def of_run(most: int | None, filtered: bool = False, mode: str = "sync", refills: bool = False) -> MaskedGroupCount:
    return MaskedGroupCount.of_run(
        OmegaConf.create(
            {
                "monitors": {"max_masked_steps": most},
                "algorithm": {"filter_groups": {"enable": filtered}},
                "data": {"train_batch_size": 5},
                "actor_rollout_ref": {"rollout": {"agent": {"num_workers": 2}}},
                "trainer": {"v1": {"trainer_mode": mode, "sampler": {"sync_refill_failed_groups": refills}}},
            }
        )
    )


MASKED, COUNTS, FAILED = group(True, True), group(True, False), None
DRAWN_ANEW: dict[str, tuple[dict[str, Any], Any]] = {
    "masked, with the filter": ({"filtered": True}, MASKED),
    "failed, in colocate_async": ({"mode": "colocate_async"}, FAILED),
    "failed, in separate_async": ({"mode": "separate_async"}, FAILED),
    "failed, with the refill": ({"refills": True}, FAILED),
}


@pytest.mark.parametrize(("run", "ended"), DRAWN_ANEW.values(), ids=DRAWN_ANEW)
def test_no_more_groups_in_a_row_are_drawn_anew_than_the_steps_that_may_be_masked_have(run: Any, ended: Any) -> None:
    count = of_run(2, **run)
    for _ in range(5):  # a worker has 3 of the 5 groups of a step
        count.add(ended)
    with pytest.raises(TooManyFaults, match=r"^monitors\.max_masked_steps=2: of 6 groups in a row no rollout counts"):
        count.add(ended)


@pytest.mark.parametrize(("run", "ended"), DRAWN_ANEW.values(), ids=DRAWN_ANEW)
def test_a_group_in_which_one_counts_begins_the_count_anew(run: Any, ended: Any) -> None:
    count = of_run(1, **run)
    for _ in range(4):
        count.add(ended)
        count.add(ended)
        count.add(COUNTS)


@pytest.mark.parametrize(("run", "ended"), DRAWN_ANEW.values(), ids=DRAWN_ANEW)
def test_without_the_limit_there_is_no_bound(run: Any, ended: Any) -> None:
    count = of_run(None, **run)
    for _ in range(100):
        count.add(ended)


@pytest.mark.parametrize(
    ("run", "ended"),
    [({}, MASKED), ({}, FAILED), ({"filtered": True}, FAILED), ({"mode": "colocate_async"}, MASKED)],
    ids=["masked", "failed", "failed, with the filter", "masked, in colocate_async"],
)
def test_groups_that_fill_a_step_are_left_to_the_trainers_count(run: Any, ended: Any) -> None:
    count = of_run(1, **run)
    for _ in range(100):
        count.add(ended)


def test_masked_and_failed_groups_add_up_where_both_are_drawn_anew() -> None:
    count = of_run(1, filtered=True, mode="colocate_async")
    count.add(MASKED)
    count.add(FAILED)
    with pytest.raises(TooManyFaults):
        count.add(MASKED)
