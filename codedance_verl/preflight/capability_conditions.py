"""Conditions under which keys of verl are read: without them a value would be ignored silently."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig

from codedance_verl.preflight.capabilities import changes, chosen_pairs, shown
from codedance_verl.preflight.capability_words import ACTOR, FSDP, MODEL, REFERENCE, ROLLOUT, under
from codedance_verl.preflight.layout import SEPARATE, needs_critic, needs_reference
from codedance_verl.preflight.report import Report, at
from codedance_verl.reward import advantage


@dataclass(frozen=True)
class Condition:
    """Row of the second table in docs/configuration.md.

    Attributes:
        keys: dotted prefixes of the keys that are read under the condition alone.
        needs: the condition, as it ends the line of a refusal.
        holds: true for a configuration that fulfils it.
        example: overrides, the last of which is refused without it.
        shipped: values of the files of `conf/` that were chosen are left alone: a recipe sets some for either case, or
            for an option that was overridden beside it.
    """

    keys: tuple[str, ...]
    needs: str
    holds: Callable[[DictConfig], bool]
    example: str
    shipped: bool = False


def check_conditions(config: DictConfig, report: Report) -> None:
    """Finds every changed key whose condition does not hold."""
    for change in changes(config):
        row = _row(change.key)
        if row is None or report.has_error(change.key) or row.holds(config):
            continue
        # a file of conf/ sets such values for either case; only the user's own are at fault
        if not (row.shipped and (change.key, repr(change.value)) in chosen_pairs(config)):
            report.add_error(f"{shown(change)}: has no effect without {row.needs}")


def conditions_markdown() -> str:
    """Returns the table for docs/configuration.md."""
    lines = ["| read only with | keys |", "|---|---|"]
    for row in CONDITIONS:
        keys = ", ".join(f"`{key.removeprefix('actor_rollout_ref.')}`" for key in row.keys)
        lines.append(f"| {row.needs} | {keys} |")
    return "\n".join(lines)


def _row(key: str) -> Condition | None:
    """Returns the row with the longest prefix of a key."""
    found = [
        (len(prefix), row) for row in CONDITIONS for prefix in row.keys if key == prefix or key.startswith(f"{prefix}.")
    ]
    return max(found, key=lambda item: item[0])[1] if found else None


def _is(key: str, *values: Any) -> Callable[[DictConfig], bool]:
    return lambda config: at(config, key) in values


def _given(key: str) -> Callable[[DictConfig], bool]:
    return lambda config: bool(at(config, key))


def _clip_ratio_is_read(config: DictConfig) -> bool:
    """Returns True where a bound is left to it: verl takes `clip_ratio_low` and `clip_ratio_high` where given."""
    bounds = [at(config, f"{ACTOR}.clip_ratio_{side}") for side in ("low", "high")]
    return any(bound is None or bound == at(config, f"{ACTOR}.clip_ratio") for bound in bounds)


_LOSS = f"{ACTOR}.policy_loss.loss_mode"
_CORRECTION = "algorithm.rollout_correction"
_DYNAMIC = f"{ACTOR}.use_dynamic_bsz"

CONDITIONS = (
    # `core_algos.compute_gae_advantage_return` and `compute_reinforce_plus_plus_outcome_advantage` alone discount
    Condition(
        ("algorithm.gamma",),
        "algorithm.adv_estimator=gae or reinforce_plus_plus; turns are credited by reward_preset",
        _is("algorithm.adv_estimator", "gae", "reinforce_plus_plus"),
        "algorithm.gamma=0.99",
    ),
    # `compute_reinforce_plus_plus_outcome_advantage` has no lambda
    Condition(
        ("algorithm.lam",),
        "algorithm.adv_estimator=gae (algorithm=ppo)",
        _is("algorithm.adv_estimator", "gae"),
        "algorithm.lam=0.9",
        shipped=True,
    ),
    Condition(
        ("algorithm.norm_adv_by_std_in_grpo",),
        f"algorithm.adv_estimator={advantage.NAME}, grpo, grpo_vectorized or grpo_passk",
        _is("algorithm.adv_estimator", advantage.NAME, "grpo", "grpo_vectorized", "grpo_passk"),
        "algorithm=ppo algorithm.norm_adv_by_std_in_grpo=false",
    ),
    # without a critic verl starts no worker that reads its node
    Condition(
        ("critic", "trainer.critic_warmup", "trainer.max_critic_ckpt_to_keep"),
        "a critic (algorithm=ppo)",
        needs_critic,
        "critic.optim.lr=0.002",
        shipped=True,
    ),
    # the reference takes its micro-batches and FSDP from a node of its own
    Condition(
        (REFERENCE,),
        f"a reference model ({ACTOR}.use_kl_loss=true, or algorithm.use_kl_in_reward=true)",
        needs_reference,
        f"{REFERENCE}.log_prob_micro_batch_size_per_gpu=2",
        shipped=True,
    ),
    Condition(
        (f"{ACTOR}.kl_loss_coef", f"{ACTOR}.kl_loss_type"),
        f"{ACTOR}.use_kl_loss=true",
        _given(f"{ACTOR}.use_kl_loss"),
        f"{ACTOR}.kl_loss_coef=0.01",
    ),
    Condition(
        ("algorithm.kl_penalty", "algorithm.kl_ctrl"),
        "algorithm.use_kl_in_reward=true",
        _given("algorithm.use_kl_in_reward"),
        "algorithm.kl_penalty=low_var_kl",
    ),
    Condition(
        (f"{ACTOR}.clip_ratio",),
        f"a bound that is left to it ({ACTOR}.clip_ratio_low, clip_ratio_high); set these",
        _clip_ratio_is_read,
        f"algorithm=dapo {ACTOR}.clip_ratio=0.4",
    ),
    # lower bound of the ratio for negative advantages (dual-clip PPO, arXiv 1912.09729)
    Condition(
        (f"{ACTOR}.clip_ratio_c",),
        f"{_LOSS}=vanilla, dppo_tv or dppo_kl",
        _is(_LOSS, "vanilla", "dppo_tv", "dppo_kl"),
        f"{_LOSS}=gspo {ACTOR}.clip_ratio_c=5.0",
    ),
    # temperatures of the soft gate, `core_algos.compute_policy_loss_sapo`
    Condition(
        (f"{ACTOR}.tau_pos", f"{ACTOR}.tau_neg"),
        f"{_LOSS}=sapo",
        _is(_LOSS, "sapo"),
        f"{ACTOR}.tau_pos=0.9",
    ),
    # `core_algos.compute_policy_loss_clip_cov`
    Condition(
        under((f"{ACTOR}.policy_loss",), "clip_cov_ratio", "clip_cov_lb", "clip_cov_ub"),
        f"{_LOSS}=clip_cov",
        _is(_LOSS, "clip_cov"),
        f"{ACTOR}.policy_loss.clip_cov_ratio=0.1",
    ),
    # `core_algos.compute_policy_loss_kl_cov`
    Condition(
        under((f"{ACTOR}.policy_loss",), "kl_cov_ratio", "ppo_kl_coef"),
        f"{_LOSS}=kl_cov",
        _is(_LOSS, "kl_cov"),
        f"{ACTOR}.policy_loss.ppo_kl_coef=0.2",
    ),
    # `core_algos.compute_policy_loss_dro`
    Condition(
        (f"{ACTOR}.policy_loss.dro_beta",), f"{_LOSS}=dro", _is(_LOSS, "dro"), f"{ACTOR}.policy_loss.dro_beta=0.1"
    ),
    # `core_algos.agg_loss` divides by it in this mode alone
    Condition(
        (f"{ACTOR}.loss_scale_factor",),
        f"{ACTOR}.loss_agg_mode=seq-mean-token-sum-norm",
        _is(f"{ACTOR}.loss_agg_mode", "seq-mean-token-sum-norm"),
        f"{ACTOR}.loss_scale_factor=77",
    ),
    # `rollout_corr_helper.compute_rollout_correction_weights`
    Condition(
        under((_CORRECTION,), "rollout_is_threshold", "rollout_is_batch_normalize"),
        f"{_CORRECTION}.rollout_is=token or sequence",
        _is(f"{_CORRECTION}.rollout_is", "token", "sequence"),
        f"{_CORRECTION}.rollout_is_threshold=3.0",
    ),
    # `rollout_corr_helper.compute_rollout_rejection_mask`
    Condition(
        (f"{_CORRECTION}.rollout_rs_threshold",),
        f"{_CORRECTION}.rollout_rs",
        _given(f"{_CORRECTION}.rollout_rs"),
        f"{_CORRECTION}.rollout_rs_threshold=2.0",
    ),
    # the replay buffer drops groups of equal rewards, `trainer/ppo/v1/replay_buffer.py`
    Condition(
        under(("algorithm.filter_groups",), "metric", "max_inflight_gen_batches"),
        "algorithm.filter_groups.enable=true (algorithm=dapo)",
        _given("algorithm.filter_groups.enable"),
        "algorithm.filter_groups.max_inflight_gen_batches=3",
    ),
    Condition(
        (f"{ACTOR}.ppo_max_token_len_per_gpu", f"{ROLLOUT}.log_prob_max_token_len_per_gpu"),
        f"{_DYNAMIC}=true; {ACTOR}.ppo_micro_batch_size_per_gpu bounds batches now",
        _given(_DYNAMIC),
        f"{ACTOR}.ppo_max_token_len_per_gpu=30000",
        shipped=True,
    ),
    Condition(
        (f"{ACTOR}.ppo_micro_batch_size_per_gpu", f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu"),
        f"{_DYNAMIC}=false; {ACTOR}.ppo_max_token_len_per_gpu bounds batches now",
        lambda config: not at(config, _DYNAMIC),
        f"{_DYNAMIC}=true {ACTOR}.ppo_micro_batch_size_per_gpu=2",
        shipped=True,
    ),
    Condition(
        under((MODEL,), "lora_alpha", "target_modules", "exclude_modules"),
        f"{MODEL}.lora_rank above 0 (adapter=lora)",
        _given(f"{MODEL}.lora_rank"),
        f"{MODEL}.lora_alpha=8",
    ),
    Condition(
        under((ACTOR, FSDP[0]), "entropy_from_logits_chunk_size"),
        f"{ACTOR}.entropy_from_logits_with_chunking=true",
        _given(f"{ACTOR}.fsdp_config.entropy_from_logits_with_chunking"),
        f"{ACTOR}.entropy_from_logits_chunk_size=512",
    ),
    Condition(
        under(FSDP[:1], "pad_to_length_bucket"),
        f"{ACTOR}.pad_to_length=true",
        _given(f"{ACTOR}.fsdp_config.pad_to_length"),
        f"{ACTOR}.fsdp_config.pad_to_length_bucket=512",
    ),
    Condition(
        (f"{ROLLOUT}.nnodes", f"{ROLLOUT}.n_gpus_per_node", "trainer.v1.separate_async"),
        "trainer=separate_async; else rollouts share the devices of training",
        _is("trainer.v1.trainer_mode", SEPARATE),
        f"{ROLLOUT}.n_gpus_per_node=6",
        shipped=True,
    ),
    Condition(
        ("trainer.v1.colocate_async",),
        "trainer=colocate_async",
        _is("trainer.v1.trainer_mode", "colocate_async"),
        "trainer.v1.colocate_async.num_warmup_batches=3",
    ),
    Condition(
        ("trainer.resume_from_path",),
        "trainer.resume_mode=resume_path",
        _is("trainer.resume_mode", "resume_path"),
        "trainer.resume_from_path=/nope/global_step_3",
    ),
)
"""Every row, in the order of the documentation."""
