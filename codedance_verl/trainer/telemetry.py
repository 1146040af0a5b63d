"""Metrics of the trainer at the end of a step: verl's under our names, and the remaining time of the run."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from codedance_verl.metrics import catalogue, emit
from codedance_verl.metrics.catalogue import Metric
from codedance_verl.runtime.progress import Pace

SAME: dict[str, Metric] = {
    "timing_s/step": catalogue.TRAINING_STEP_SECONDS,
    "perf/total_num_tokens": catalogue.TRAINING_TOKENS,
    "perf/throughput": catalogue.TRAINING_TOKEN_RATE,
    "perf/mfu/actor": catalogue.TRAINING_MFU,
    "actor/pg_loss": catalogue.TRAINING_LOSS,
    "actor/grad_norm": catalogue.TRAINING_GRADIENT,
    "actor/entropy": catalogue.TRAINING_ENTROPY,
    "actor/ppo_kl": catalogue.TRAINING_KL,
    "actor/pg_clipfrac": catalogue.TRAINING_CLIPPED,
    "actor/lr": catalogue.TRAINING_RATE,
    "critic/score/mean": catalogue.TRAINING_SCORE,
    "response_length/mean": catalogue.TRAINING_RESPONSE,
    "training/rollout_probs_diff_mean": catalogue.TRAINING_MISMATCH,
}
"""Our metric for a metric of verl's."""

PHASES = {
    "timing_s/gen": "rollout",
    "timing_s/old_log_prob": "old_log_prob",
    "timing_s/ref": "ref_log_prob",
    "timing_s/values": "values",
    "timing_s/adv": "advantage",
    "timing_s/update_actor": "update_actor",
    "timing_s/update_critic": "update_critic",
    "timing_s/update_weights": "weight_sync",
    "timing_s/save_checkpoint": "checkpoint",
    "timing_s/testing": "validation",
}
"""Label `phase` in `codedance_training_phase_seconds` for a timer of verl's."""

STALENESS = {
    "training/off_policy/trajectory_staleness/mean": "mean",
    "training/off_policy/trajectory_staleness/max": "max",
}


class StepTelemetry:
    """Recorder of the steps of one run."""

    def __init__(self) -> None:
        self._pace = Pace()
        self._phases: set[str] = set()

    def begin(self, validating: bool = False) -> None:
        """Records that a step begins, or a validation, whose time says nothing of a step's."""
        emit.set_gauge(catalogue.TRAINING_STARTED, time.time())
        emit.set_gauge(catalogue.TRAINING_VALIDATING, float(validating))

    def rest(self) -> None:
        """Records that nothing is in progress: NaN, as an alert compares this gauge with the time."""
        emit.set_gauge(catalogue.TRAINING_STARTED, math.nan)
        emit.set_gauge(catalogue.TRAINING_VALIDATING, 0.0)

    def end(self, step: int, planned: int, values: Mapping[str, Any], trajectories: float) -> None:
        """Records the end of a step out of `planned`, with verl's metrics of it and the number of its trajectories."""
        numbers = {name: float(value) for name, value in values.items() if _is_number(value)}
        emit.set_gauge(catalogue.TRAINING_STEP, step)
        emit.set_gauge(catalogue.TRAINING_STEPS, planned)
        for name, metric in SAME.items():
            if name in numbers:
                emit.set_gauge(metric, numbers[name])
        self._phases |= PHASES.keys() & numbers.keys()
        for name in self._phases:  # 0 for a phase that this step did without: else a gauge keeps an earlier step's time
            emit.set_gauge(catalogue.TRAINING_PHASE, numbers.get(name, 0.0), phase=PHASES[name])
        for name, statistic in STALENESS.items():
            if name in numbers:
                emit.set_gauge(catalogue.TRAINING_STALENESS, numbers[name], statistic=statistic)
        if (taken := numbers.get("timing_s/step", 0.0)) > 0:
            emit.set_gauge(catalogue.TRAINING_TRAJECTORY_RATE, trajectories / taken)
        self._pace.add(numbers)
        if (left := self._pace.seconds_left(planned - step)) is not None:
            emit.set_gauge(catalogue.TRAINING_REMAINING, left)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) or (hasattr(value, "item") and getattr(value, "size", None) == 1)
