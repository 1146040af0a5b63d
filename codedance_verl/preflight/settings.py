"""Checks single settings: all of ours, and of verl's those that a run rests on. Every error is told, not the first.

verl looks at most of its values when they are used, which may be an hour into a run, and names no key then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from codedance_verl.config.checks import check_choice, check_number, check_whole
from codedance_verl.environment.config import EnvironmentConfig
from codedance_verl.errors import UserError
from codedance_verl.grading import GradingConfig
from codedance_verl.preflight.report import Report, ToldAlready, at
from codedance_verl.reward import advantage
from codedance_verl.reward.config import RewardConfig
from codedance_verl.reward.monitors import MonitorConfig
from codedance_verl.rollout.sampling_config import SamplingConfig
from codedance_verl.rollout.telemetry import FILTER_METRIC
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.trainer import determinism
from codedance_verl.trajectories.config import TrajectoriesConfig

OURS: dict[str, Callable[[Mapping[str, Any]], object]] = {
    "environment": EnvironmentConfig.from_mapping,
    "sandbox": SandboxConfig.from_mapping,
    "sampling": SamplingConfig.from_mapping,
    "monitors": MonitorConfig.from_mapping,
    "trajectories": TrajectoriesConfig.from_mapping,
    "grading": GradingConfig.from_mapping,
    "reward_preset": RewardConfig.from_mapping,
}
"""Nodes of the configuration and what reads them."""


@dataclass(frozen=True)
class Range:
    """What a number may be. `optional`: null too."""

    low: float
    high: float
    whole: bool = True
    optional: bool = False

    def check(self, value: object, key: str) -> None:
        """Raise `UserError` for any other value."""
        if value is None and self.optional:
            return
        if self.whole:
            check_whole(value, int(self.low), int(self.high), key)
        else:
            check_number(value, self.low, self.high, key)


_COUNT = Range(1, 1_000_000)
_COUNT_OR_NULL = Range(1, 1_000_000, optional=True)
_SHARE = Range(0, 1, whole=False)
_RATE = Range(0, 1, whole=False)
_TOKENS = Range(1, 10_000_000)

ACTOR, ROLLOUT, MODEL = "actor_rollout_ref.actor", "actor_rollout_ref.rollout", "actor_rollout_ref.model"

NUMBERS: dict[str, Range] = {
    "seed": Range(0, 2**31 - 1),
    "time_limit_s": Range(1, 1e9, whole=False, optional=True),
    "placement_limit_s": Range(1, 604_800, whole=False, optional=True),
    "step_limit_s": Range(1, 604_800, whole=False, optional=True),
    "stop_grace_s": Range(1, 86_400, whole=False),
    "gpu_memory_gib": Range(1, 1024, whole=False, optional=True),
    "data.train_batch_size": _COUNT,
    "data.val_batch_size": _COUNT_OR_NULL,
    "data.max_prompt_length": _TOKENS,
    "data.max_response_length": _TOKENS,
    "data.dataloader_num_workers": Range(0, 256),
    f"{ACTOR}.ppo_mini_batch_size": _COUNT,
    f"{ACTOR}.ppo_micro_batch_size_per_gpu": _COUNT_OR_NULL,
    f"{ACTOR}.ppo_max_token_len_per_gpu": _TOKENS,
    f"{ACTOR}.ppo_epochs": Range(1, 100),
    f"{ACTOR}.clip_ratio": _SHARE,
    f"{ACTOR}.clip_ratio_low": _SHARE,
    f"{ACTOR}.clip_ratio_high": Range(0, 10, whole=False),
    f"{ACTOR}.loss_scale_factor": Range(1, 10_000_000, optional=True),
    f"{ACTOR}.entropy_coeff": Range(-1, 1, whole=False),
    f"{ACTOR}.kl_loss_coef": Range(0, 10, whole=False),
    f"{ACTOR}.optim.lr": _RATE,
    f"{ACTOR}.optim.clip_grad": Range(0, 1e6, whole=False),
    f"{ACTOR}.optim.weight_decay": _SHARE,
    f"{ACTOR}.fsdp_config.fsdp_size": Range(-1, 100_000),
    f"{ACTOR}.ulysses_sequence_parallel_size": Range(1, 1024),
    f"{MODEL}.lora_rank": Range(0, 4096),
    f"{ROLLOUT}.n": Range(1, 1024),
    f"{ROLLOUT}.temperature": Range(0.01, 10, whole=False),
    f"{ROLLOUT}.top_p": Range(0.01, 1, whole=False),
    f"{ROLLOUT}.gpu_memory_utilization": Range(0.05, 0.95, whole=False),
    f"{ROLLOUT}.tensor_model_parallel_size": Range(1, 1024),
    f"{ROLLOUT}.max_model_len": Range(1, 10_000_000, optional=True),
    f"{ROLLOUT}.max_num_seqs": _COUNT,
    f"{ROLLOUT}.max_num_batched_tokens": _TOKENS,
    f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu": _COUNT_OR_NULL,
    f"{ROLLOUT}.agent.num_workers": Range(1, 10_000),
    f"{ROLLOUT}.val_kwargs.n": Range(1, 1024),
    f"{ROLLOUT}.val_kwargs.temperature": Range(0, 10, whole=False),
    f"{ROLLOUT}.nnodes": Range(0, 10_000),
    f"{ROLLOUT}.n_gpus_per_node": Range(0, 64),
    "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu": _COUNT_OR_NULL,
    "algorithm.gamma": _SHARE,
    "algorithm.lam": _SHARE,
    "algorithm.filter_groups.max_inflight_gen_batches": _COUNT,
    "critic.optim.lr": _RATE,
    "trainer.nnodes": Range(1, 10_000),
    "trainer.n_gpus_per_node": Range(1, 64),
    "trainer.total_training_steps": _COUNT_OR_NULL,
    "trainer.total_epochs": Range(1, 10_000_000),
    "trainer.save_freq": Range(-1, 1_000_000),
    "trainer.test_freq": Range(-1, 1_000_000),
    "trainer.max_actor_ckpt_to_keep": _COUNT_OR_NULL,
    "trainer.critic_warmup": Range(0, 1_000_000),
    "trainer.v1.separate_async.parameter_sync_step": _COUNT,
}
"""Numbers of the training tree and what they may be."""

CHOICES: dict[str, tuple[str, ...]] = {
    f"{ACTOR}.strategy": ("fsdp", "fsdp2"),
    f"{ACTOR}.loss_agg_mode": (
        "token-mean",
        "token-sum",
        "seq-mean-token-sum",
        "seq-mean-token-mean",
        "seq-mean-token-sum-norm",
    ),
    f"{ROLLOUT}.name": ("vllm",),
    f"{ROLLOUT}.dtype": ("bfloat16", "float16", "float32"),
    f"{ROLLOUT}.load_format": ("auto", "dummy", "safetensors", "fastsafetensors", "runai_streamer", "hf", "pt"),
    f"{ROLLOUT}.logprobs_mode": ("processed_logprobs", "raw_logprobs"),
    f"{ROLLOUT}.scheduling_policy": ("fcfs", "priority"),
    "trainer.device": ("cpu", "cuda"),
    "trainer.resume_mode": ("auto", "disable", "resume_path"),
    "trainer.v1.trainer_mode": ("sync", "colocate_async", "separate_async"),
}
"""Texts of the training tree and what they may be."""

FLAGS = (
    "dry_run",
    "deterministic",
    "skip_bad_records",
    f"{ACTOR}.use_dynamic_bsz",
    f"{ACTOR}.use_kl_loss",
    f"{ACTOR}.fsdp_config.param_offload",
    f"{ACTOR}.fsdp_config.optimizer_offload",
    f"{MODEL}.enable_gradient_checkpointing",
    f"{MODEL}.use_remove_padding",
    f"{ROLLOUT}.free_cache_engine",
    "algorithm.filter_groups.enable",
    "algorithm.norm_adv_by_std_in_grpo",
    "trainer.val_only",
)


def check_settings(config: DictConfig, report: Report) -> None:
    """Look at every setting by itself, then at those of the estimator and the group filter together."""
    for node, parse in OURS.items():
        for line in faults(node, parse, config[node]):
            report.add_error(line)
    for key, allowed in NUMBERS.items():
        with report.collecting():
            allowed.check(at(config, key), key)
    for key, choices in CHOICES.items():
        with report.collecting():
            check_choice(at(config, key), choices, key)
    for key in FLAGS:
        if not isinstance(at(config, key), bool):
            report.add_error(f"{key}={at(config, key)}: must be true or false")
    with report.collecting():
        _check_estimator(config)
    with report.collecting():
        _check_loss_scale(config)
    with report.collecting():
        _check_filter(config)
    with report.collecting():
        _check_adapter(config)
    with report.collecting():
        determinism.check(config)
    _warn_of_cut_sampling(config, report)


def number(config: DictConfig, key: str) -> Any:
    """The number at a key of `NUMBERS`. Raises `ToldAlready` where it is not what it may be."""
    value = at(config, key)
    try:
        NUMBERS[key].check(value, key)
    except UserError:
        raise ToldAlready(key) from None
    return value


def faults(node: str, parse: Callable[[Mapping[str, Any]], object], values: Any) -> list[str]:
    """Every fault that `parse` finds in a node: what it names is told and left out, until the rest is right."""
    rest: Any = OmegaConf.to_container(values, resolve=True) if isinstance(values, DictConfig) else values
    if not isinstance(rest, Mapping):
        return [f"{node}={rest}: must be a mapping; its keys are set one by one, as {node}.KEY=VALUE"]
    rest = dict(rest)
    found: list[str] = []
    while True:
        try:
            parse(rest)
        except UserError as error:
            found.append(str(error))
            if not _without(rest, _named_key(str(error)).removeprefix(f"{node}.")):
                return found
        else:
            return found


def _named_key(line: str) -> str:
    """The dotted key that a message begins with."""
    return line.split(":", 1)[0].split("=", 1)[0].strip()


def _without(values: dict[str, Any], dotted: str) -> bool:
    """Take a key out of nested mappings; False where it is not there."""
    *above, last = dotted.split(".")
    for name in above:
        values = values.get(name) or {}
    if not isinstance(values, dict) or last not in values:
        return False
    del values[last]
    return True


def _check_estimator(config: DictConfig) -> None:
    try:
        preset = RewardConfig.from_mapping(config.reward_preset)
    except UserError:
        raise ToldAlready("reward_preset") from None
    advantage.check_estimator(config.algorithm, preset)


def _check_loss_scale(config: DictConfig) -> None:
    """Without a constant verl 0.9.1 divides by the longest response of each micro-batch (`core_algos.agg_loss`)."""
    mode, key = at(config, f"{ACTOR}.loss_agg_mode"), f"{ACTOR}.loss_scale_factor"
    if mode == "seq-mean-token-sum-norm" and at(config, key) is None:
        raise UserError(
            f"{key}=null: must be a number of tokens with {ACTOR}.loss_agg_mode={mode}, such as "
            "${data.max_response_length}"
        )


def _check_filter(config: DictConfig) -> None:
    """verl would end the first step of a run whose rollouts do not report what its group filter compares."""
    known = (FILTER_METRIC, "reward")
    chosen = config.algorithm.filter_groups
    if chosen.enable and chosen.metric not in known:
        raise UserError(f"algorithm.filter_groups.metric={chosen.metric}: must be one of {', '.join(known)}")


def _warn_of_cut_sampling(config: DictConfig, report: Report) -> None:
    """Old log-probs, ratios and KL are of the whole distribution, whatever rollouts were drawn from."""
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
    """Unmerged, vLLM would get the adapters apart from the weights, on a path of verl's that nothing here tests."""
    rank = number(config, f"{MODEL}.lora_rank")
    if rank and at(config, f"{MODEL}.lora.merge") is not True:
        raise UserError(f"{MODEL}.lora.merge=false: must be true with {MODEL}.lora_rank={rank}; adapter=lora sets it")
