"""Checks of single settings: all of ours, and of verl's those that a run rests on.

verl looks at most of its values when they are used, which may be an hour into a run, and names no key then.
"""

from __future__ import annotations

from typing import Annotated, Any

from omegaconf import DictConfig

from codedance_verl.config.node import Node, Value, one_of, real, whole
from codedance_verl.config.run import RunConfig
from codedance_verl.environment.config import EnvironmentConfig
from codedance_verl.errors import UserError
from codedance_verl.grading import GradingConfig
from codedance_verl.preflight.report import AlreadyReported, Report, at
from codedance_verl.reward import advantage
from codedance_verl.reward.config import RewardConfig
from codedance_verl.reward.monitors import MonitorConfig
from codedance_verl.rollout.sampling_config import SamplingConfig
from codedance_verl.rollout.telemetry import FILTER_METRIC
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.trainer import determinism
from codedance_verl.trajectories.config import TrajectoriesConfig

_NODES: tuple[type[Node], ...] = (
    EnvironmentConfig,
    SandboxConfig,
    SamplingConfig,
    MonitorConfig,
    TrajectoriesConfig,
    GradingConfig,
    RewardConfig,
)
OURS = {node.KEY: node for node in _NODES}
"""Nodes of the configuration that are ours, by their keys."""

_FLAG = Value(bool)
_COUNT = whole(1, 1_000_000)
_COUNT_OR_NULL = whole(1, 1_000_000, optional=True)
_SHARE = real(0, 1)
_TOKENS = whole(1, 10_000_000)

ACTOR, ROLLOUT, MODEL = "actor_rollout_ref.actor", "actor_rollout_ref.rollout", "actor_rollout_ref.model"

VALUES: dict[str, Value] = {
    "gpu_memory_gib": Value(Annotated[float | None, *RunConfig.model_fields["gpu_memory_gib"].metadata]),
    "data.train_batch_size": _COUNT,
    "data.val_batch_size": _COUNT_OR_NULL,
    "data.max_prompt_length": _TOKENS,
    "data.max_response_length": _TOKENS,
    "data.dataloader_num_workers": whole(0, 256),
    "data.image_patch_size": whole(1, 256),
    f"{ACTOR}.ppo_mini_batch_size": _COUNT,
    f"{ACTOR}.ppo_micro_batch_size_per_gpu": _COUNT_OR_NULL,
    f"{ACTOR}.ppo_max_token_len_per_gpu": _TOKENS,
    f"{ACTOR}.ppo_epochs": whole(1, 100),
    f"{ACTOR}.clip_ratio": _SHARE,
    f"{ACTOR}.clip_ratio_low": _SHARE,
    f"{ACTOR}.clip_ratio_high": real(0, 10),
    f"{ACTOR}.loss_scale_factor": whole(1, 10_000_000, optional=True),
    f"{ACTOR}.entropy_coeff": real(-1, 1),
    f"{ACTOR}.kl_loss_coef": real(0, 10),
    f"{ACTOR}.optim.lr": _SHARE,
    f"{ACTOR}.optim.clip_grad": real(0, 1e6),
    f"{ACTOR}.optim.weight_decay": _SHARE,
    f"{ACTOR}.fsdp_config.fsdp_size": whole(-1, 100_000),
    f"{ACTOR}.ulysses_sequence_parallel_size": whole(1, 1024),
    f"{MODEL}.lora_rank": whole(0, 4096),
    f"{ROLLOUT}.n": whole(1, 1024),
    f"{ROLLOUT}.temperature": real(0.01, 10),
    f"{ROLLOUT}.top_p": real(0.01, 1),
    f"{ROLLOUT}.gpu_memory_utilization": real(0.05, 0.95),
    f"{ROLLOUT}.tensor_model_parallel_size": whole(1, 1024),
    f"{ROLLOUT}.max_model_len": whole(1, 10_000_000, optional=True),
    f"{ROLLOUT}.max_num_seqs": _COUNT,
    f"{ROLLOUT}.max_num_batched_tokens": _TOKENS,
    f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu": _COUNT_OR_NULL,
    f"{ROLLOUT}.agent.num_workers": whole(1, 10_000),
    f"{ROLLOUT}.val_kwargs.n": whole(1, 1024),
    f"{ROLLOUT}.val_kwargs.temperature": real(0, 10),
    f"{ROLLOUT}.nnodes": whole(0, 10_000),
    f"{ROLLOUT}.n_gpus_per_node": whole(0, 64),
    "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu": _COUNT_OR_NULL,
    "algorithm.gamma": _SHARE,
    "algorithm.lam": _SHARE,
    "algorithm.filter_groups.max_inflight_gen_batches": _COUNT,
    "critic.optim.lr": _SHARE,
    "trainer.nnodes": whole(1, 10_000),
    "trainer.n_gpus_per_node": whole(1, 64),
    "trainer.total_training_steps": _COUNT_OR_NULL,
    "trainer.total_epochs": whole(1, 10_000_000),
    "trainer.save_freq": whole(-1, 1_000_000),
    "trainer.test_freq": whole(-1, 1_000_000),
    "trainer.max_actor_ckpt_to_keep": _COUNT_OR_NULL,
    "trainer.critic_warmup": whole(0, 1_000_000),
    "trainer.v1.separate_async.parameter_sync_step": _COUNT,
    f"{ACTOR}.strategy": one_of(("fsdp", "fsdp2")),
    f"{ACTOR}.loss_agg_mode": one_of(
        ("token-mean", "token-sum", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm")
    ),
    f"{ROLLOUT}.name": one_of(("vllm",)),
    f"{ROLLOUT}.dtype": one_of(("bfloat16", "float16", "float32")),
    f"{ROLLOUT}.load_format": one_of(("auto", "dummy", "safetensors", "fastsafetensors", "runai_streamer", "hf", "pt")),
    f"{ROLLOUT}.logprobs_mode": one_of(("processed_logprobs", "raw_logprobs")),
    f"{ROLLOUT}.scheduling_policy": one_of(("fcfs", "priority")),
    "trainer.device": one_of(("cpu", "cuda")),
    "trainer.resume_mode": one_of(("auto", "disable", "resume_path")),
    "trainer.v1.trainer_mode": one_of(("sync", "colocate_async", "separate_async")),
    f"{ACTOR}.use_dynamic_bsz": _FLAG,
    f"{ACTOR}.use_kl_loss": _FLAG,
    f"{ACTOR}.fsdp_config.param_offload": _FLAG,
    f"{ACTOR}.fsdp_config.optimizer_offload": _FLAG,
    f"{MODEL}.enable_gradient_checkpointing": _FLAG,
    f"{MODEL}.use_remove_padding": _FLAG,
    f"{ROLLOUT}.free_cache_engine": _FLAG,
    "algorithm.filter_groups.enable": _FLAG,
    "algorithm.norm_adv_by_std_in_grpo": _FLAG,
    "trainer.val_only": _FLAG,
}
"""Values of verl's training tree that a run rests on."""


def check_settings(config: DictConfig, report: Report) -> None:
    """Checks every setting by itself, then those of the estimator and the group filter together."""
    for key, node in OURS.items():
        with report.collecting():
            node.from_mapping(config[key])
    with report.collecting():
        RunConfig.from_mapping({name: at(config, name) for name in RunConfig.model_fields})
    check_table(VALUES, config, report)
    for check in (_check_estimator, _check_loss_scale, _check_filter, _check_adapter, determinism.check):
        with report.collecting():
            check(config)
    _warn_of_cut_sampling(config, report)


def check_table(values: dict[str, Value], config: DictConfig, report: Report) -> None:
    """Adds every fault of the values at these dotted keys."""
    for key, value in values.items():
        if fault := value.fault(at(config, key), key):
            report.add_error(fault.line)


def number(config: DictConfig, key: str) -> Any:
    """Returns the number at a key of `VALUES`. Raises `AlreadyReported` where `check_settings` has reported it."""
    value = at(config, key)
    if VALUES[key].fault(value, key):
        raise AlreadyReported(key)
    return value


def _check_estimator(config: DictConfig) -> None:
    try:
        preset = RewardConfig.from_mapping(config.reward_preset)
    except UserError:
        raise AlreadyReported("reward_preset") from None
    advantage.check_estimator(config.algorithm, preset)


def _check_loss_scale(config: DictConfig) -> None:
    """Asks for a constant: else verl 0.9.1 divides by the longest response of a micro-batch (`core_algos.agg_loss`)."""
    mode, key = at(config, f"{ACTOR}.loss_agg_mode"), f"{ACTOR}.loss_scale_factor"
    if mode == "seq-mean-token-sum-norm" and at(config, key) is None:
        raise UserError(
            f"{key}=null: must be a number of tokens with {ACTOR}.loss_agg_mode={mode}, such as "
            "${data.max_response_length}"
        )


def _check_filter(config: DictConfig) -> None:
    """Checks the metric of the group filter: verl ends the first step where rollouts do not report it."""
    known = (FILTER_METRIC, "reward")
    chosen = config.algorithm.filter_groups
    if chosen.enable and chosen.metric not in known:
        raise UserError(f"algorithm.filter_groups.metric={chosen.metric}: must be one of {', '.join(known)}")


def _warn_of_cut_sampling(config: DictConfig, report: Report) -> None:
    """Warns of `top_p` and `top_k`: old log-probs, ratios and KL are those of the whole distribution."""
    top_p, top_k = at(config, f"{ROLLOUT}.top_p"), at(config, f"{ROLLOUT}.top_k")
    cut = [("top_p", top_p)] if isinstance(top_p, int | float) and top_p < 1 else []
    cut += [("top_k", top_k)] if isinstance(top_k, int) and top_k > 0 else []
    for name, value in cut:
        report.warn(
            f"{ROLLOUT}.{name}={value}: rollouts are drawn from a cut distribution and trained by the whole one, so "
            "train and rollout log-probs differ and importance weights are off; validation has keys of its own, "
            f"{ROLLOUT}.val_kwargs.{name}"
        )


def _check_adapter(config: DictConfig) -> None:
    """Asks for merged adapters: unmerged ones go to vLLM apart, on a path of verl's that no test here runs."""
    rank = number(config, f"{MODEL}.lora_rank")
    if rank and at(config, f"{MODEL}.lora.merge") is not True:
        raise UserError(f"{MODEL}.lora.merge=false: must be true with {MODEL}.lora_rank={rank}; adapter=lora sets it")
