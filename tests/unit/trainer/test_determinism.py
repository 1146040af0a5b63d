from __future__ import annotations

import pytest
from omegaconf import DictConfig

from codedance_verl.config.compose import compose_config
from codedance_verl.errors import UserError
from codedance_verl.trainer.determinism import apply_determinism, limit_threads

RUN = ["hardware=cpu", "recipe=cpu_demo", "run_dir=/tmp/run", "data.train_files=a", "data.val_files=b"]


def composed(*overrides: str) -> DictConfig:
    return compose_config("train", [*RUN, *overrides])


def test_a_deterministic_run_serves_one_request_at_a_time_on_one_thread() -> None:
    config = composed("deterministic=true")
    limit_threads(config)
    apply_determinism(config)
    rollout = config.actor_rollout_ref.rollout
    assert (rollout.max_num_seqs, rollout.enable_prefix_caching) == (1, False)
    assert config.env_vars.OMP_NUM_THREADS == "1"
    assert config.actor_rollout_ref.actor.fsdp_config.full_determinism
    assert config.critic.fsdp.full_determinism


def test_any_other_run_is_left_as_it_is() -> None:
    config = composed()
    limit_threads(config)
    apply_determinism(config)
    assert config == composed()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer=colocate_async"], r"deterministic=true: needs trainer\.v1\.trainer_mode=sync, not colocate_async"),
        (["algorithm.filter_groups.enable=true"], r"deterministic=true: cannot be had with algorithm\.filter_groups"),
    ],
)
def test_what_time_decides_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        apply_determinism(composed("deterministic=true", *overrides))
