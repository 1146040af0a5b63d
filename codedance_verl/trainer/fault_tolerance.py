"""What is added to verl's trainers, whichever mode is chosen: whole checkpoints, stops that save, a limit on the step.

`fault_tolerant(cls)` puts `FaultTolerantTrainer` before a trainer class of verl. A checkpoint holds the state after a
step: what verl saves
(model, optimizer, schedule, generators of random numbers, the place in the data, in asynchronous modes the queue of
rollouts), and what the rollout workers count.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
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
from codedance_verl.runtime.run_limits import Stopped, request_stop, stop_is_wanted
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.node_metrics import NodeMetrics
from codedance_verl.sandbox.ray_node import node_metrics
from codedance_verl.trainer.health_check import WorkerHealthCheck
from codedance_verl.trainer.masked_steps import MaskedSteps
from codedance_verl.trainer.step_watchdog import StepWatch, where_is
from codedance_verl.trainer.telemetry import StepTelemetry

logger = logging.getLogger(__name__)

DATA_STATE = "data.pt"
"""verl's name for the place in the data."""
WORKER_STATE = "rollout_workers.json"
STALL_REPORT = "stalled.txt"
ANSWER_SECONDS = 10.0
"""How long a rollout worker may take to say what it waits for, or what it has counted."""
NODE_ANSWER_SECONDS = 5.0
"""How long a sandbox node may take to say what it has counted, beside the rollout workers."""


@dataclass(frozen=True)
class StepState:
    """What belongs to the last finished step beside the weights: the place in the data, and what each worker counts."""

    step: int
    data: dict[str, Any]
    workers: list[dict[str, Any]]


class _StopHere(Exception):
    """Leaves verl's loop where nothing of the next step has reached the weights."""


class FaultTolerantTrainer(MaskedSteps):
    """Goes before a subclass of verl's `PPOTrainer` in the order of inheritance."""

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
        self._settled: StepState | None = None
        self._saved_step = 0
        self._drawn = (0, 0)
        self._told = 0
        self._watch = StepWatch(config.step_limit_s, self._end_stalled)
        self._telemetry = StepTelemetry()
        self._pulse = WorkerHealthCheck()
        self._nodes: NodeMetrics | None = None
        super().__init__(config)

    # ---- stopping ----

    def fit(self, agent_loop_manager: Any) -> None:
        """Train to the end.

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
            self._stop_here_if_wanted()
        except _StopHere:
            self._watch.begin("saving before the stop")
            self._save_settled()
            if reason := self.too_many_masked:
                raise UserError(f"{reason}; {self._what_is_left()}") from None
            raise Stopped(self._what_is_left()) from None
        finally:
            self._watch.rest()
            self._telemetry.rest()

    def _what_is_left(self) -> str:
        """What a stop has left, and how to go on from it: in one line."""
        if self._settled is None:
            return "no step was finished, so nothing had to be saved; start the run again"
        saved, mode = f"the last finished step, {self._saved_step}, is saved", self.config.trainer.resume_mode
        if mode == "auto":
            return f"{saved}; start the run again to go on"
        return (
            f"{saved}; start the run again with trainer.resume_mode=auto to go on, as with {mode} it would begin where "
            "it began this time"
        )

    def on_step_begin(self) -> None:
        """verl's hook before a step."""
        self._stop_here_if_wanted()
        if self.too_many_masked:
            raise _StopHere
        self._watch.begin(f"step {self.global_steps}")
        self._telemetry.begin()
        super().on_step_begin()  # type: ignore[misc]

    def on_sample_end(self) -> None:
        """verl's hook once a batch is there. Where rollouts go on beyond it, training takes what they wait for."""
        if self.trainer_mode == "colocate_async":
            self._tell_workers("pause")
        super().on_sample_end()  # type: ignore[misc]

    def on_step_end(self) -> None:
        """verl's hook that sends the weights, during which nothing is generated; then rollouts go on."""
        if self.trainer_mode != "sync":
            self._tell_workers("pause")
        super().on_step_end()  # type: ignore[misc]
        if self.trainer_mode != "sync":
            self._tell_workers("resume")

    def _tell_workers(self, what: str) -> None:
        """Have the rollout workers `pause` or `resume`; nobody waits for that.

        Ray may run calls of an asynchronous actor in another order, so each has a number, and late ones are ignored.
        """
        self._told += 1
        for worker in self.agent_loop_manager.agent_loop_workers:
            getattr(worker, what).remote(self._told)

    def on_validate_begin(self) -> None:
        """verl's hook before a validation."""
        self._watch.begin(f"the validation after step {self.global_steps}")
        self._telemetry.begin(validating=True)
        super().on_validate_begin()  # type: ignore[misc]

    def _validate(self) -> dict[str, float]:
        """A validation that is broken off leaves the step its other metrics; the run stops before the next step."""
        try:
            return super()._validate()  # type: ignore[misc,no-any-return]
        except _StopHere:
            if self._settled is None:
                raise
            return {}

    def _build_replay_buffer(self) -> Any:
        """verl's buffer; it looks for a request to stop, and for dead workers, whenever it has waited for rollouts."""
        buffer = super()._build_replay_buffer()
        wait = buffer._wait_for_next_poll

        def wait_unless_stopped(*args: Any) -> float:
            if self.local_trigger_step == 0:  # later a part of the step has reached the weights
                self._stop_here_if_wanted()
            self._pulse.poll(self.agent_loop_manager.agent_loop_workers)
            return wait(*args)  # type: ignore[no-any-return]

        buffer._wait_for_next_poll = wait_unless_stopped
        return buffer

    def _stop_here_if_wanted(self) -> None:
        if stop_is_wanted(self._run_dir):
            raise _StopHere

    # ---- saving ----

    def step(self, metrics: dict[str, Any], timing_raw: dict[str, float]) -> Any:
        """One step of verl's, after which it is noted what belongs to it."""
        self.local_trigger_step = 0
        batch = super().step(metrics, timing_raw)
        self.local_trigger_step = 0  # verl leaves it at its last part, where nothing may break off what waits
        workers = [worker.state.remote() for worker in self.agent_loop_manager.agent_loop_workers]
        self._settled = StepState(self.global_steps, self.train_dataloader.state_dict(), ray.get(workers))
        return batch

    def _save_checkpoint(self) -> None:
        assert self._settled is not None and self._settled.step == self.global_steps
        folder = checkpoints.folder_of(self._checkpoints, self.global_steps)
        checkpoints.unseal(folder)
        super()._save_checkpoint()  # type: ignore[misc]
        if self.trainer_mode == "sync":  # else prompts drawn since are in the queue, which is saved with them
            torch.save(self._settled.data, folder / DATA_STATE)
        (folder / WORKER_STATE).write_text(json.dumps(self._settled.workers))
        # only now: killed before, the run still has those of its former course
        if aside := checkpoints.set_aside(self._checkpoints, self.global_steps):
            logger.warning("checkpoints of steps after %d are of a former course: now in %s", self.global_steps, aside)
        checkpoints.seal(folder)
        checkpoints.prune(self._checkpoints, self._keep)
        self._saved_step = self.global_steps

    def _restore_workers(self) -> None:
        """Give the rollout workers back what they had counted; if there are more or fewer now, all begin anew."""
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

    def _save_settled(self) -> None:
        """Save the last finished step, unless it is saved. What the next one has drawn is dropped, or stays queued."""
        if self._settled is None or self._settled.step <= self._saved_step:
            return
        self.global_steps = self._settled.step
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
        """What verl gives to its trackers, with what all processes of the run have told since the last step."""
        super()._compute_metrics(batch, metrics, *args, **kwargs)
        tallies = self._take_metrics()
        finished = finished_trajectories(for_trackers(tallies))
        self._telemetry.end(self.global_steps, self.total_training_steps, metrics, finished)
        metrics.update(for_trackers([*tallies, emit.drain()]))

    def _take_metrics(self) -> list[Tally]:
        """Of the rollout workers and the sandbox; those that do not answer in time are left out of this step.

        This process alone asks the sandbox: were it every worker, calls would grow with workers times nodes.
        """
        if self._nodes is not None:
            self._nodes.ask()
        calls = [worker.take_metrics.remote() for worker in self.agent_loop_manager.agent_loop_workers]
        done, _ = ray.wait(calls, num_returns=len(calls), timeout=ANSWER_SECONDS)
        found: list[Tally] = []
        for call in done:
            try:
                found.append(ray.get(call))
            except Exception as error:  # a step is not lost for want of its metrics
                logger.warning("a rollout worker does not tell its metrics: %s", error)
        return [*found, *(self._nodes.take(NODE_ANSWER_SECONDS) if self._nodes is not None else ())]

    # ---- determinism ----

    def _fetch_one_gen_batch(self) -> Any:
        """Draw prompts. A deterministic run names them in the order they are drawn in: names decide an order below."""
        batch = super()._fetch_one_gen_batch()  # type: ignore[misc]
        if self.config.deterministic:
            step, before = self._drawn
            before = before if step == self.global_steps else 0
            self._drawn = (self.global_steps, before + len(batch))
            names = [f"{self.global_steps:09d}-{before + k:09d}" for k in range(len(batch))]
            assign_non_tensor_stack(batch, "uid", names)
        return batch

    def _balance_batch(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
        """Rollouts come in the order they ended in; a deterministic run sorts them before they become mini-batches."""
        if self.config.deterministic:
            batch.reorder(sorted(range(len(batch.keys)), key=lambda k: _place(batch.keys[k])))
        return super()._balance_batch(batch, *args, **kwargs)

    # ---- watching ----

    def _end_stalled(self, what: str) -> None:
        """End the run with a report of who waits for what. Runs in the thread of the watch."""
        limit = self.config.step_limit_s
        report = f"{what} has taken more than {limit:g} s\n\n{self._who_waits()}\n"
        logger.error("%s", report)
        try:
            (self._run_dir / STALL_REPORT).write_text(report)
        except OSError as error:  # the log has the report too
            logger.warning("%s cannot be written: %s", self._run_dir / STALL_REPORT, error)
        request_stop(
            self._run_dir,
            f"step_limit_s={limit:g}: {what} took longer; {self._run_dir / STALL_REPORT} says who waits for what; "
            "start the run again to resume from the last checkpoint",
        )

    def _who_waits(self) -> str:
        buffer = self.replay_buffer
        groups = [
            f"{len(buffer.pending_keys[name])} wait, {len(buffer.running_keys[name])} are under way, "
            f"{len(buffer.finished_keys[name])} finished, {len(buffer.failure_keys[name])} failed"
            for name in ("train", "val")
        ]
        parts = [
            f"the trainer is in\n{where_is(threading.main_thread(), inside='trainer')}",
            f"groups for training: {groups[0]}\ngroups for validation: {groups[1]}",
        ]
        manager = getattr(self, "agent_loop_manager", None)
        workers = manager.agent_loop_workers if manager is not None else []
        calls = [worker.waiting.remote() for worker in workers]
        done = set(ray.wait(calls, num_returns=len(calls), timeout=ANSWER_SECONDS)[0]) if calls else set()
        parts += [f"rollout worker {index}:\n{_wait_of(call, call in done)}" for index, call in enumerate(calls)]
        return "\n\n".join(parts)


def _wait_of(call: Any, is_done: bool) -> str:
    """What a rollout worker says it waits for. A report must come, whatever it lacks."""
    if not is_done:
        return "no answer"
    try:
        return ray.get(call) or "for nothing"
    except Exception as error:
        return f"no answer: {type(error).__name__}"


def _place(key: str) -> tuple[str, int, int]:
    """Where a rollout belongs in its batch, from its key `<prompt>_<rollout>_<output>`."""
    prompt, rollout, output = key.rsplit("_", 2)
    return prompt, int(rollout), int(output)


def fault_tolerant(trainer: type) -> type:
    """A trainer class of verl with `FaultTolerantTrainer` before it."""
    return (
        trainer
        if issubclass(trainer, FaultTolerantTrainer)
        else type(f"FaultTolerant{trainer.__name__}", (FaultTolerantTrainer, trainer), {})
    )
