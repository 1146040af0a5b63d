"""Fault tolerance for verl's trainers of every mode: whole checkpoints, stops that save, a limit on the step.

`fault_tolerant(cls)` puts `FaultTolerantTrainer` before a trainer class of verl. A checkpoint holds the state after a
step: what verl saves (model, optimizer, schedule, generators of random numbers, the place in the data, in asynchronous
modes the queue of rollouts), and what the rollout workers count.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from omegaconf import DictConfig, open_dict
from ray.exceptions import RayActorError
from verl.utils.tensordict_utils import assign_non_tensor_stack

from codedance_verl.errors import UserError
from codedance_verl.metrics import emit
from codedance_verl.metrics.emit import Tally, finished_trajectories, for_trackers
from codedance_verl.runtime import checkpoints
from codedance_verl.runtime.remote_answers import answers_within
from codedance_verl.runtime.run_limits import Stopped, request_stop, stop_is_wanted
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.node_metrics import NodeMetrics
from codedance_verl.sandbox.ray_node import node_metrics
from codedance_verl.trainer.health_check import WorkerHealthCheck
from codedance_verl.trainer.masked_steps import MaskedSteps
from codedance_verl.trainer.step_watchdog import StepWatchdog, stack_of
from codedance_verl.trainer.telemetry import StepTelemetry

logger = logging.getLogger(__name__)

DATA_STATE = "data.pt"
"""verl's name for the place in the data."""
WORKER_STATE = "rollout_workers.json"
STALL_REPORT = "stalled.txt"
ANSWER_SECONDS = 10.0
"""Longest wait for the rollout workers to report what they wait for, or what they have counted."""
NODE_ANSWER_SECONDS = 5.0
"""Longest wait for the sandbox nodes' metrics, beside that for the rollout workers."""


@dataclass(frozen=True)
class StepState:
    """State after a step beside the weights: the place in the data, and what each rollout worker counts."""

    step: int
    data: dict[str, Any]
    workers: list[dict[str, Any]]


class _StopHere(Exception):
    """Raised to leave verl's loop where nothing of the next step has reached the weights."""


class FaultTolerantTrainer(MaskedSteps):
    """Mixin that goes before a subclass of verl's `PPOTrainer` in the order of inheritance."""

    config: Any
    global_steps: int
    total_training_steps: int
    trainer_mode: str
    local_trigger_step: int
    agent_loop_manager: Any
    train_dataloader: Any
    replay_buffer: Any

    def __init__(self, config: DictConfig) -> None:
        self._run_dir = Path(config.run_dir)
        self._checkpoints = Path(config.trainer.default_local_dir)
        self._keep: int | None = config.trainer.max_actor_ckpt_to_keep
        with open_dict(config):  # verl would remove the previous checkpoint before the new one is whole
            config.trainer.max_actor_ckpt_to_keep = config.trainer.max_critic_ckpt_to_keep = None
        self._finished: StepState | None = None
        self._saved_step = 0
        self._drawn = (0, 0)
        self._calls_sent = 0
        self._watchdog = StepWatchdog(config.step_limit_s, self._end_stalled)
        self._telemetry = StepTelemetry()
        self._health = WorkerHealthCheck()
        self._nodes: NodeMetrics | None = None
        super().__init__(config)

    # ---- stopping ----

    def fit(self, agent_loop_manager: Any) -> None:
        """Trains to the end.

        Raises:
            Stopped: a stop was asked for; the last finished step is saved.
            UserError: too many steps in a row had no rollout that counts; the last finished step is saved.
        """
        self.agent_loop_manager, self._saved_step = agent_loop_manager, self.global_steps
        if ray.is_initialized():
            self._nodes = node_metrics(SandboxConfig.from_mapping(self.config.sandbox))
        self._restore_workers()
        try:
            super().fit(agent_loop_manager)  # type: ignore[misc]
            self._stop_here_if_wanted()  # it may have broken off the last validation, which a resume makes up for
        except _StopHere:
            self._watchdog.begin("saving before the stop")
            self._save_finished()
            if reason := self.too_many_masked:
                raise UserError(f"{reason}; {self._what_is_left()}") from None
            raise Stopped(self._what_is_left()) from None
        finally:
            self._watchdog.rest()
            self._telemetry.rest()

    def _what_is_left(self) -> str:
        """Returns a line of what a stop has saved, and how to resume from it."""
        if self._finished is None:
            return "no step was finished, so nothing had to be saved; start the run again"
        saved, mode = f"the last finished step, {self._saved_step}, is saved", self.config.trainer.resume_mode
        if mode == "auto":
            return f"{saved}; start the run again to resume"
        return (
            f"{saved}; start the run again with trainer.resume_mode=auto to resume, as with {mode} it would begin "
            "where it began this time"
        )

    def on_step_begin(self) -> None:
        """Extends verl's hook before a step."""
        self._stop_here_if_wanted()
        if self.too_many_masked:
            raise _StopHere
        self._watchdog.begin(f"step {self.global_steps}")
        self._telemetry.begin()
        super().on_step_begin()  # type: ignore[misc]

    def on_sample_end(self) -> None:
        """Extends verl's hook after a batch is drawn.

        In `colocate_async` rollouts beyond the batch stay in flight, and training takes the GPUs that they wait for.
        """
        if self.trainer_mode == "colocate_async":
            self._signal_workers("pause")
        super().on_sample_end()  # type: ignore[misc]

    def on_step_end(self) -> None:
        """Extends verl's hook that sends the weights: nothing is generated meanwhile, which is no stall."""
        if self.trainer_mode != "sync":
            self._signal_workers("pause")
        super().on_step_end()  # type: ignore[misc]
        if self.trainer_mode != "sync":
            self._signal_workers("resume")

    def _signal_workers(self, method: str) -> None:
        """Makes the rollout workers `pause` or `resume`; does not wait for it.

        Ray may run calls of an asynchronous actor in another order, so each has a number, and late ones are ignored.
        """
        self._calls_sent += 1
        for worker in self.agent_loop_manager.agent_loop_workers:
            getattr(worker, method).remote(self._calls_sent)

    def on_validate_begin(self) -> None:
        """Extends verl's hook before a validation."""
        self._watchdog.begin(f"the validation after step {self.global_steps}")
        self._telemetry.begin(validating=True)
        super().on_validate_begin()  # type: ignore[misc]

    def _validate(self) -> dict[str, float]:
        """Validates. One that is broken off leaves the step its other metrics; the run stops before the next step."""
        try:
            return super()._validate()  # type: ignore[misc,no-any-return]
        except _StopHere:
            if self._finished is None:
                raise
            return {}

    def _build_replay_buffer(self) -> Any:
        """Makes verl's buffer notice requests to stop, and dead workers, whenever it has waited for rollouts."""
        buffer = super()._build_replay_buffer()
        wait = buffer._wait_for_next_poll

        def wait_unless_stopped(*args: Any) -> float:
            if self.local_trigger_step == 0:  # later a part of the step has reached the weights
                self._stop_here_if_wanted()
            self._health.poll(self.agent_loop_manager.agent_loop_workers)
            return wait(*args)  # type: ignore[no-any-return]

        buffer._wait_for_next_poll = wait_unless_stopped
        return buffer

    def _stop_here_if_wanted(self) -> None:
        if stop_is_wanted(self._run_dir):
            raise _StopHere

    # ---- saving ----

    def step(self, metrics: dict[str, Any], timing_raw: dict[str, float]) -> Any:
        """Runs a step of verl's and keeps the state after it, for a later stop to save."""
        self.local_trigger_step = 0
        batch = super().step(metrics, timing_raw)
        self.local_trigger_step = 0  # verl leaves it at its last part, where nothing may break off what waits
        workers = [worker.state.remote() for worker in self.agent_loop_manager.agent_loop_workers]
        self._finished = StepState(self.global_steps, self.train_dataloader.state_dict(), ray.get(workers))
        return batch

    def _save_checkpoint(self) -> None:
        """Saves the finished step. The order matters: a kill at any line leaves a sealed checkpoint to resume from."""
        assert self._finished is not None and self._finished.step == self.global_steps
        folder = checkpoints.folder_of(self._checkpoints, self.global_steps)
        checkpoints.unseal(folder)
        super()._save_checkpoint()  # type: ignore[misc]
        if self.trainer_mode == "sync":  # else prompts drawn since are in the queue, which is saved with them
            torch.save(self._finished.data, folder / DATA_STATE)
        (folder / WORKER_STATE).write_text(json.dumps(self._finished.workers))
        # only now: killed before, the run still has those of its former course
        if aside := checkpoints.set_aside(self._checkpoints, self.global_steps):
            logger.warning("checkpoints of steps after %d are of a former course: now in %s", self.global_steps, aside)
        checkpoints.seal(folder)
        checkpoints.prune(self._checkpoints, self._keep)
        self._saved_step = self.global_steps

    def _restore_workers(self) -> None:
        """Gives the rollout workers back what they had counted; where there are more or fewer now, all start from 0."""
        folder = checkpoints.folder_of(self._checkpoints, self.global_steps)
        if self.config.trainer.resume_mode == "resume_path":
            folder = Path(self.config.trainer.resume_from_path)
        path = folder / WORKER_STATE
        if self.global_steps == 0 or not path.is_file():
            return
        states, workers = json.loads(path.read_text()), self.agent_loop_manager.agent_loop_workers
        if len(states) != len(workers):
            logger.warning("%s is of %d rollout workers, now there are %d", path, len(states), len(workers))
            return
        ray.get([worker.restore.remote(state) for worker, state in zip(workers, states, strict=True)])

    def _save_finished(self) -> None:
        """Saves the last finished step, unless it is saved. What the next one has drawn is dropped, or stays queued."""
        if self._finished is None or self._finished.step <= self._saved_step:
            return
        self.global_steps = self._finished.step
        if self.trainer_mode == "sync":
            for call in [worker.abandon.remote() for worker in self.agent_loop_manager.agent_loop_workers]:
                with contextlib.suppress(RayActorError):  # a dead one has nothing left to drop
                    ray.get(call)
        if self.config.actor_rollout_ref.rollout.free_cache_engine:  # the memory that saving needs is vLLM's
            self.checkpoint_manager.abort_replicas()  # type: ignore[attr-defined]
            self.checkpoint_manager.sleep_replicas()  # type: ignore[attr-defined]
        self._save_checkpoint()

    # ---- metrics ----

    def _compute_metrics(self, batch: Any, metrics: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        """Adds to verl's metrics those that all processes of the run have recorded since the last step."""
        super()._compute_metrics(batch, metrics, *args, **kwargs)
        tallies = self._take_metrics()
        finished = finished_trajectories(for_trackers(tallies))
        self._telemetry.end(self.global_steps, self.total_training_steps, metrics, finished)
        metrics.update(for_trackers([*tallies, emit.drain()]))

    def _take_metrics(self) -> list[Tally]:
        """Returns the metrics of rollout workers and sandbox nodes; who does not answer in time is left out this once.

        This process alone asks the sandbox: were it every worker, calls would grow with workers times nodes.
        """
        if self._nodes is not None:
            self._nodes.ask()
        workers = self.agent_loop_manager.agent_loop_workers
        calls = {index: worker.take_metrics.remote() for index, worker in enumerate(workers)}
        found: list[Tally] = []
        for index, answer in answers_within(calls, ANSWER_SECONDS).items():
            if isinstance(answer, Exception):  # a step is not lost for want of its metrics
                logger.warning("rollout worker %d gives no metrics: %s", index, answer)
            else:
                found.append(answer)
        return [*found, *(self._nodes.take(NODE_ANSWER_SECONDS) if self._nodes is not None else ())]

    # ---- determinism ----

    def _fetch_one_gen_batch(self) -> Any:
        """Draws prompts. A deterministic run names them in the order of drawing, by which `_balance_batch` sorts."""
        batch = super()._fetch_one_gen_batch()  # type: ignore[misc]
        if self.config.deterministic:
            step, before = self._drawn
            before = before if step == self.global_steps else 0
            self._drawn = (self.global_steps, before + len(batch))
            names = [f"{self.global_steps:09d}-{before + k:09d}" for k in range(len(batch))]
            assign_non_tensor_stack(batch, "uid", names)
        return batch

    def _balance_batch(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
        """Sorts the rollouts of a deterministic run, which come in the order they ended in, before they are split."""
        if self.config.deterministic:
            batch.reorder(sorted(range(len(batch.keys)), key=lambda k: _place(batch.keys[k])))
        return super()._balance_batch(batch, *args, **kwargs)

    # ---- watching ----

    def _end_stalled(self, work: str) -> None:
        """Ends the run with a report of what each part waits for. Runs in the watchdog's thread."""
        limit = self.config.step_limit_s
        report = f"{work} has taken more than {limit:g} s\n\n{self._who_waits()}\n"
        logger.error("%s", report)
        try:
            (self._run_dir / STALL_REPORT).write_text(report)
        except OSError as error:  # the log has the report too
            logger.warning("%s cannot be written: %s", self._run_dir / STALL_REPORT, error)
        request_stop(
            self._run_dir,
            f"step_limit_s={limit:g}: {work} took longer; {self._run_dir / STALL_REPORT} says who waits for what; "
            "start the run again to resume from the last checkpoint",
        )

    def _who_waits(self) -> str:
        buffer = self.replay_buffer
        groups = [
            f"{len(buffer.pending_keys[name])} wait, {len(buffer.running_keys[name])} are in flight, "
            f"{len(buffer.finished_keys[name])} finished, {len(buffer.failure_keys[name])} failed"
            for name in ("train", "val")
        ]
        parts = [
            f"the trainer is in\n{stack_of(threading.main_thread(), inside='trainer')}",
            f"groups for training: {groups[0]}\ngroups for validation: {groups[1]}",
        ]
        manager = getattr(self, "agent_loop_manager", None)  # none is there before `fit`
        workers = manager.agent_loop_workers if manager is not None else []
        calls = {index: worker.waiting.remote() for index, worker in enumerate(workers)}
        answers = answers_within(calls, ANSWER_SECONDS)
        return "\n\n".join([*parts, *(f"rollout worker {index}:\n{_waits_for(answers, index)}" for index in calls)])


def _waits_for(answers: Mapping[int, Any], index: int) -> str:
    """Returns a rollout worker's report, or why there is none: the whole must come, whatever it lacks."""
    if index not in answers:
        return "no answer"
    answer = answers[index]
    return f"no answer: {type(answer).__name__}" if isinstance(answer, Exception) else answer or "for nothing"


def _place(key: str) -> tuple[str, int, int]:
    """Returns a rollout's place in its batch, from its key `<prompt>_<rollout>_<output>`."""
    prompt, rollout, output = key.rsplit("_", 2)
    return prompt, int(rollout), int(output)


def fault_tolerant(trainer: type) -> type:
    """Returns a trainer class of verl with `FaultTolerantTrainer` before it."""
    return (
        trainer
        if issubclass(trainer, FaultTolerantTrainer)
        else type(f"FaultTolerant{trainer.__name__}", (FaultTolerantTrainer, trainer), {})
    )
