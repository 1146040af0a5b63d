from __future__ import annotations

import itertools

from codedance_verl.environment.generation import for_part, seed_of


def test_each_rollout_has_a_seed_of_its_own_and_the_same_again() -> None:
    parts = list(itertools.product((0, 1), range(1, 5), ("a/1", "a/2"), range(8)))
    seeds = [seed_of(*item) for item in parts]
    assert len(set(seeds)) == len(parts)
    assert seeds == [seed_of(*item) for item in parts]
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_each_turn_has_a_seed_of_its_own_where_the_rollout_has_one() -> None:
    params = {"temperature": 1.0, "seed": 7}
    assert for_part(params, 1)["seed"] != for_part(params, 2)["seed"]
    assert params == {"temperature": 1.0, "seed": 7}
    assert for_part({"temperature": 1.0}, 1) == {"temperature": 1.0}
