"""Determinism: with `deterministic: true` two runs on one machine draw the same rollouts and end with the same weights.

Without it they differ, because vLLM draws the tokens of all requests from one generator, in the order they happen to
be served in, and its sums depend on what else is in the batch; rollouts reach the trainer in the order they end in;
torch has algorithms whose sums depend on how threads get along.
"""

from __future__ import annotations

from omegaconf import DictConfig, open_dict

from codedance_verl.errors import UserError


def check(config: DictConfig) -> None:
    """Raises `UserError` where a deterministic run's mode or group filter leaves to chance what is trained on."""
    if config.deterministic is not True:
        return
    mode = config.trainer.v1.trainer_mode
    if mode != "sync":
        raise UserError(
            f"deterministic=true: needs trainer.v1.trainer_mode=sync, not {mode}, where time decides which weights "
            "a rollout is drawn with"
        )
    if config.algorithm.filter_groups.enable:
        raise UserError(
            "deterministic=true: cannot be had with algorithm.filter_groups.enable=true, where time decides how many "
            "groups are drawn"
        )


def limit_threads(config: DictConfig) -> None:
    """Puts a deterministic run's number of threads into its environment variables; call before these are set."""
    if config.deterministic is True and isinstance(config.env_vars, DictConfig):
        with open_dict(config):
            # with several threads a sum depends on how its terms are split among them
            config.env_vars.OMP_NUM_THREADS = "1"


def apply_determinism(config: DictConfig) -> None:
    """Puts the rest of what `deterministic` asks for into a configuration that was checked.

    Earlier the checks would take these values for the user's own, and refuse settings of a model that the run lacks.

    Raises:
        UserError: see `check`.
    """
    check(config)
    if config.deterministic is not True:
        return
    rollout = config.actor_rollout_ref.rollout
    with open_dict(config):
        rollout.max_num_seqs = 1  # alone in its batch a request gets the same sums whatever else is asked
        rollout.enable_prefix_caching = False  # and is always computed from its beginning
        for engine in (config.actor_rollout_ref.actor.fsdp_config, config.actor_rollout_ref.ref.fsdp_config):
            engine.full_determinism = True
        config.critic.fsdp.full_determinism = True
