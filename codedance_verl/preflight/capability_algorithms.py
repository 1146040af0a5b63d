"""Rows of `capability_table`: algorithms."""

from __future__ import annotations

from codedance_verl.preflight.capabilities import Capability
from codedance_verl.preflight.capability_words import ACTOR, NO_EFFECT, NOT_RUN, REFERENCE, REFUSED, WORKS

ALGORITHMS = (
    Capability(
        "Algorithms",
        "GRPO with turn credit, Dr. GRPO",
        WORKS,
        "`algorithm=grpo`, the default: `codedance_grpo`",
        ("algorithm.adv_estimator", "algorithm.norm_adv_by_std_in_grpo", "algorithm"),
        ("algorithm.norm_adv_by_std_in_grpo=false",),
    ),
    # no keys: `algorithm.adv_estimator` is in the row above
    Capability(
        "Algorithms",
        "estimators of verl without a critic: `grpo`, `grpo_vectorized`, `grpo_passk`, `rloo`, `rloo_vectorized`, "
        "`reinforce_plus_plus`, `reinforce_plus_plus_baseline`, `opo`, `gpg`",
        WORKS,
        f"{NOT_RUN}; turn rewards are added up with the score",
        (),
        ("algorithm.adv_estimator=grpo", "algorithm.adv_estimator=rloo"),
    ),
    Capability(
        "Algorithms",
        "estimators `remax`, `gdpo`, `optimal_token_baseline`, `tir_optimal_token_baseline`",
        REFUSED,
        "verl's V1 trainer does not hand over what they need",
        (),
        ("algorithm.adv_estimator=remax", "algorithm.adv_estimator=gdpo"),
    ),
    Capability(
        "Algorithms",
        "PPO with a critic",
        WORKS,
        "`algorithm=ppo`",
        ("algorithm.gamma", "algorithm.lam", "critic", "trainer.critic_warmup"),
        ("algorithm=ppo",),
    ),
    Capability(
        "Algorithms",
        "policy losses `vanilla`, `gspo`, `cispo`, `sapo`, `gpg`, `clip_cov`, `kl_cov`, `geo_mean`, `dro`, "
        "`dppo_tv`, `dppo_kl`; clipping, aggregation, entropy",
        WORKS,
        "names are those that verl has registered; `vanilla` is what the tests run",
        (
            f"{ACTOR}.policy_loss",
            f"{ACTOR}.loss_agg_mode",
            f"{ACTOR}.loss_scale_factor",
            f"{ACTOR}.clip_ratio",
            f"{ACTOR}.entropy_coeff",
            ACTOR,
        ),
        (f"{ACTOR}.policy_loss.loss_mode=gspo", f"{ACTOR}.clip_ratio_high=0.28"),
    ),
    Capability(
        "Algorithms",
        "sums of squared probabilities",
        NO_EFFECT,
        "they are for optimal_token_baseline, which is refused",
        (f"{ACTOR}.calculate_sum_pi_squared",),
        (f"{ACTOR}.calculate_sum_pi_squared=true",),
    ),
    Capability(
        "Algorithms",
        "KL loss against a reference",
        WORKS,
        "`use_kl_loss=true`",
        (f"{ACTOR}.use_kl_loss", f"{ACTOR}.kl_loss_coef", f"{ACTOR}.kl_loss_type", REFERENCE),
        (f"{ACTOR}.use_kl_loss=true",),
    ),
    Capability(
        "Algorithms",
        "KL penalty in the reward",
        WORKS,
        "with estimators of verl; `codedance_grpo` refuses it",
        ("algorithm.use_kl_in_reward", "algorithm.kl_penalty", "algorithm.kl_ctrl"),
        (),
    ),
    Capability(
        "Algorithms",
        "dynamic sampling (DAPO)",
        WORKS,
        "`algorithm=dapo`",
        ("algorithm.filter_groups",),
        ("algorithm=dapo",),
    ),
    Capability(
        "Algorithms",
        "limit of batches of dynamic sampling",
        NO_EFFECT,
        "verl's V1 trainer has no such limit; algorithm.filter_groups.max_inflight_gen_batches bounds those in flight",
        ("algorithm.filter_groups.max_num_gen_batches",),
        ("algorithm.filter_groups.max_num_gen_batches=10",),
    ),
    Capability(
        "Algorithms",
        "rollout correction (importance weights, rejection, bypass)",
        WORKS,
        "rejection of single tokens is refused",
        ("algorithm.rollout_correction",),
        ("algorithm.rollout_correction.rollout_is=token",),
    ),
    Capability(
        "Algorithms",
        "loss of bypass mode",
        NO_EFFECT,
        "verl's V1 trainer takes actor_rollout_ref.actor.policy_loss.loss_mode in every mode",
        ("algorithm.rollout_correction.loss_type",),
        ("algorithm.rollout_correction.loss_type=reinforce", f"{ACTOR}.policy_loss.loss_mode=bypass_mode"),
    ),
    Capability(
        "Algorithms",
        "preference feedback PPO, prefix grouper",
        NO_EFFECT,
        "no trainer of verl 0.9.1 that runs here reads it",
        ("algorithm.use_pf_ppo", "algorithm.pf_ppo", f"{ACTOR}.use_prefix_grouper"),
        ("algorithm.use_pf_ppo=true", f"{ACTOR}.use_prefix_grouper=true"),
    ),
    # the plugin's estimator reads its constants here, where `reward_preset` puts them
    Capability(
        "Algorithms",
        "constants of the estimator",
        REFUSED,
        "set reward_preset",
        ("algorithm.codedance", "algorithm.gdpo_reward_keys", "algorithm.gdpo_reward_weights"),
        ("algorithm.codedance=null",),
    ),
    Capability(
        "Algorithms",
        "distillation from a teacher",
        REFUSED,
        "rollouts here ask no teacher",
        ("distillation",),
        ("distillation.enabled=true",),
    ),
)
