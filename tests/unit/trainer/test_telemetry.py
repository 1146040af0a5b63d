"""What the trainer tells of a step, from metrics as verl gives them."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf

from codedance_verl.metrics import catalogue
from codedance_verl.metrics.emit import Recorder, for_trackers
from codedance_verl.trainer.fault_tolerance import fault_tolerant
from codedance_verl.trainer.telemetry import StepTelemetry

pytestmark = pytest.mark.usefixtures("recorder")


def test_verls_metrics_are_told_under_our_names(recorder: Recorder) -> None:
    values = {
        "timing_s/step": 40.0,
        "timing_s/gen": 25.0,
        "timing_s/update_weights": 0.5,
        "timing_s/testing": 10.0,
        "perf/throughput": np.float64(650.0),
        "critic/score/mean": np.float32(0.5),
        "training/off_policy/trajectory_staleness/max": 3,
        "something else": [1, 2],
    }
    StepTelemetry().end(4, 10, values, trajectories=80)
    assert for_trackers([recorder.drain()]) == {
        "codedance/training/step": 4,
        "codedance/training/steps_planned": 10,
        "codedance/training/step_seconds": 40.0,
        "codedance/training/phase_seconds/rollout": 25.0,
        "codedance/training/phase_seconds/weight_sync": 0.5,
        "codedance/training/phase_seconds/validation": 10.0,
        "codedance/training/tokens_per_second": 650.0,
        "codedance/training/score": 0.5,
        "codedance/training/staleness_steps/max": 3,
        "codedance/training/trajectories_per_second": 2.0,
        "codedance/training/remaining_seconds": 300.0,
    }


def test_a_phase_that_a_step_did_without_took_no_time(recorder: Recorder) -> None:
    telemetry = StepTelemetry()
    telemetry.end(1, 10, {"timing_s/gen": 25.0, "timing_s/testing": 10.0}, 1)
    recorder.drain()
    telemetry.end(2, 10, {"timing_s/gen": 20.0}, 1)
    told = for_trackers([recorder.drain()])
    phases = {name.rsplit("/", 1)[1]: value for name, value in told.items() if "/phase_seconds/" in name}
    assert phases == {"rollout": 20.0, "validation": 0.0}


def test_what_is_left_follows_the_last_steps(recorder: Recorder) -> None:
    telemetry = StepTelemetry()
    for step, seconds in enumerate((1000.0, 10.0, 10.0, 10.0, 10.0, 10.0), start=1):
        telemetry.end(step, 10, {"timing_s/step": seconds}, 1)
        left = for_trackers([recorder.drain()])[catalogue.TRAINING_REMAINING.tracker]
    assert left == 40.0


def test_between_runs_nothing_is_under_way(recorder: Recorder) -> None:
    telemetry = StepTelemetry()
    telemetry.begin()
    started = for_trackers([recorder.drain()])[catalogue.TRAINING_STARTED.tracker]
    assert abs(started - time.time()) < 60
    telemetry.rest()
    assert np.isnan(for_trackers([recorder.drain()])[catalogue.TRAINING_STARTED.tracker])


def test_the_trainer_tells_when_it_validates(recorder: Recorder) -> None:
    class Loop:
        on_step_begin = on_validate_begin = lambda self: None

        def __init__(self, config: DictConfig) -> None:
            self.config, self.global_steps = config, 1

    trainer: Any = fault_tolerant(Loop)(
        OmegaConf.create(
            {
                "run_dir": "nowhere",
                "step_limit_s": None,
                "trainer": {"default_local_dir": "nowhere", "max_actor_ckpt_to_keep": None},
                "monitors": {"max_masked_steps": None},
            }
        )
    )
    told = []
    for hook in (trainer.on_step_begin, trainer.on_validate_begin, trainer.on_step_begin):
        hook()
        told.append(for_trackers([recorder.drain()])[catalogue.TRAINING_VALIDATING.tracker])
    assert told == [0, 1, 0]


def test_the_time_of_a_validation_is_told_apart_from_that_of_a_step(recorder: Recorder) -> None:
    def validating() -> float:
        return for_trackers([recorder.drain()])[catalogue.TRAINING_VALIDATING.tracker]

    telemetry = StepTelemetry()
    telemetry.begin(validating=True)
    assert validating() == 1
    telemetry.begin()
    assert validating() == 0
    telemetry.begin(validating=True)
    recorder.drain()
    telemetry.rest()
    assert validating() == 0
