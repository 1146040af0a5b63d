"""The training runs of the check: their command lines, and what their metrics must show."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

QUESTIONS, ROLLOUTS, STEPS = 8, 8, 3

CORRELATION = "training/rollout_actor_probs_pearson_corr"
DIVERGENCE = "rollout_corr/k3_kl"
BIT_EQUAL = "weight_transfer/bit_equal"
MEMORY = "actor/perf/max_memory_allocated_gb"

MIN_CORRELATION = 0.98
"""Of the sampled tokens' probabilities by vLLM and by the trainer, both in bfloat16."""
MAX_DIVERGENCE = 0.05
"""Nats a token between the two; weights that were not sent after an update show as tens of times that."""


@dataclass(frozen=True)
class Run:
    """A training run of a few steps.

    Attributes:
        name: in the report.
        size: of the model.
        devices: that it needs.
        overrides: what it adds to the common command line.
    """

    name: str
    size: str
    devices: int
    overrides: tuple[str, ...] = ()


RUNS = (
    Run("sync 0.5b", "0.5b", 1),
    Run("separate_async 0.5b", "0.5b", 2, ("trainer=separate_async",)),
    Run(
        "sync 3b",
        "3b",
        1,
        # so that it fits into 80 GB: 3.8 B parameters take 57 GiB in training
        (
            "actor_rollout_ref.actor.fsdp_config.param_offload=true",
            "actor_rollout_ref.actor.fsdp_config.optimizer_offload=true",
        ),
    ),
)


@dataclass(frozen=True)
class Inputs:
    """Paths that a run needs: data file, model folder, folder of the run."""

    data: Path
    model: Path
    run_dir: Path


def overrides(run: Run, inputs: Inputs, sandbox: str) -> list[str]:
    """Everything behind `python -m codedance_verl.train`; `sandbox` is a backend: docker, process, auto."""
    batch = QUESTIONS * ROLLOUTS
    return [
        "recipe=cpu_demo",
        "hardware=1xgpu",
        f"run_dir={inputs.run_dir}",
        f"data.train_files={inputs.data}",
        f"data.val_files={inputs.data}",
        f"actor_rollout_ref.model.path={inputs.model}",
        f"sandbox.backend={sandbox}",
        f"data.train_batch_size={QUESTIONS}",
        f"actor_rollout_ref.rollout.n={ROLLOUTS}",
        f"actor_rollout_ref.actor.ppo_mini_batch_size={QUESTIONS}",
        f"actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu={batch // 4}",
        f"actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu={batch // 4}",
        # the divergence of both sides, and no correction by it
        "algorithm.rollout_correction.rollout_is=token",
        "algorithm.rollout_correction.rollout_is_threshold=1000.0",
        # moves every weight in the first update, so that old weights in vLLM would show
        "actor_rollout_ref.actor.optim.lr=1e-4",
        f"trainer.total_training_steps={STEPS}",
        "trainer.save_freq=-1",
        "trainer.logger=[console,file]",
        *run.overrides,
    ]


def command(run: Run, inputs: Inputs, sandbox: str, limit_s: float) -> list[str]:
    """The command line of a run that may take `limit_s` seconds."""
    limit = f"time_limit_s={limit_s:.0f}"
    return [sys.executable, "-m", "codedance_verl.train", *overrides(run, inputs, sandbox), limit]


def figures(steps: Sequence[Mapping[str, float]], estimate_gib: float | None) -> dict[str, float | None]:
    """Figures of a run for the report, from its metrics by step; None where the run has not logged one.

    Tokens a second are those of the last step, without what the first one compiles. The sandbox's share is that of its
    calls and the wait for them in the time of all trajectories; random weights make hardly any call.
    """
    last, seconds = steps[-1], "codedance/rollout/seconds_total/train/"
    parts = {name.removeprefix(seconds): value for name, value in last.items() if name.startswith(seconds)}
    waited = parts.get("queue", 0.0) + parts.get("execute", 0.0)
    correlations = [step[CORRELATION] for step in steps if CORRELATION in step]
    divergences = [step[DIVERGENCE] for step in steps if DIVERGENCE in step]
    return {
        "steps": float(len(steps)),
        "tokens_per_second": last.get("perf/throughput"),
        "seconds_per_step": last.get("perf/time_per_step"),
        "sandbox_wait_share": waited / sum(parts.values()) if sum(parts.values()) else None,
        # a value that is no number must not hide behind the others
        "probability_correlation_least": min(correlations, default=None, key=lambda value: (value == value, value)),
        "divergence_most": max(divergences, default=None, key=lambda value: (value != value, value)),
        "weights_bit_equal": min((step[BIT_EQUAL] for step in steps if BIT_EQUAL in step), default=None),
        "memory_gib": max((step[MEMORY] for step in steps if MEMORY in step), default=None),
        "memory_estimate_gib": estimate_gib,
    }


def faults(run: Run, found: Mapping[str, float | None]) -> list[str]:
    """Faults in a run's figures, a line each; after the first update they also show that weights went over."""
    wrong = []
    if (found["steps"] or 0) < STEPS:
        wrong.append(f"{found['steps']:g} of {STEPS} steps were done")
    correlation, divergence = found["probability_correlation_least"], found["divergence_most"]
    if correlation is None or not correlation >= MIN_CORRELATION:
        wrong.append(f"probabilities of vLLM and the trainer correlate by {correlation}, not {MIN_CORRELATION} or more")
    if divergence is None or not divergence <= MAX_DIVERGENCE:
        wrong.append(f"vLLM and the trainer are {divergence} nats a token apart, not {MAX_DIVERGENCE} or less")
    equal = found["weights_bit_equal"]
    if "trainer=separate_async" in run.overrides and (equal is None or equal < 1):
        wrong.append("the rollout's weights were not reported as bit-equal to the trainer's")
    return wrong
