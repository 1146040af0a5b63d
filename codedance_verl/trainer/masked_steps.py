"""Masked steps: a step of which no rollout counts is skipped, and too many in a row end the run.

A judge or a sandbox that is down for a step masks all of its rollouts, and a defect of the data may fail all of its
groups. verl 0.9.1 ends in a traceback there. A step that is skipped changes neither weights nor optimizer nor schedule;
weights are sent, checkpoints and validations are due as after any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import transfer_queue as tq
from omegaconf import DictConfig
from transfer_queue import KVBatchMeta

from codedance_verl.metrics import catalogue, emit

FETCHED_MASKS = 64
"""Rollouts whose masks are fetched at once: nearly always one of the first counts."""


class NothingCounts(Exception):
    """Raised to leave a part of verl's step before it trains.

    `batch` has its rollouts, all masked; `failed` is the number of its failed groups.
    """

    def __init__(self, batch: KVBatchMeta, failed: int = 0) -> None:
        super().__init__(batch, failed)
        self.batch, self.failed = batch, failed


class MaskedSteps:
    """Mixin that goes before a subclass of verl's `PPOTrainer` in the order of inheritance."""

    config: Any
    global_steps: int
    local_trigger_step: int
    parameter_sync_step: int
    actor_rollout_wg: Any

    def __init__(self, config: DictConfig) -> None:
        self.masked_in_a_row = 0
        """Steps since the last one that has trained."""
        self._trained_parts = 0
        super().__init__(config)  # type: ignore[call-arg]

    @property
    def too_many_masked(self) -> str | None:
        """Returns why the run must end, in one line; None while it need not."""
        most = self.config.monitors.max_masked_steps
        if most is None or self.masked_in_a_row < most:
            return None
        return (
            f"monitors.max_masked_steps={most}: of {self.masked_in_a_row} steps in a row no rollout counted, so none "
            "has trained; the log says why of each"
        )

    def step(self, metrics: dict[str, Any], timing_raw: dict[str, float]) -> Any:
        """Runs a step of verl's, which may train in several parts."""
        self._trained_parts = 0
        batch = super().step(metrics, timing_raw)  # type: ignore[misc]
        if self._trained_parts:
            self.masked_in_a_row = 0
            return batch
        self.masked_in_a_row += 1
        return _stand_in(self.global_steps)

    def _step_once(self, metrics: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Runs a part of a step. Where nothing counts it is skipped, and an empty batch stands for it."""
        try:
            batch = super()._step_once(metrics, *args, **kwargs)  # type: ignore[misc]
        except NothingCounts as found:
            self._skip(found)
            return _nothing()
        self._trained_parts += 1
        return batch

    def _skip(self, found: NothingCounts) -> None:
        # printed as the console's line of a step is: the task runner's log lets no warning through at this point
        print(f"step {self.global_steps} is skipped: {_why(found)}", flush=True)
        if found.batch.keys:
            tq.kv_clear(keys=found.batch.keys, partition_id=found.batch.partition_id)
        # the parts that follow take their old log-probs from the weights that the first part began with
        if self.parameter_sync_step > 1 and self.local_trigger_step == 0:
            self.actor_rollout_wg.save_model_to_cpu(0)

    def _balance_batch(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
        """Leaves the step before verl's first work on a batch, which adds padding."""
        if not _counts(batch):
            raise NothingCounts(batch)
        return super()._balance_batch(batch, *args, **kwargs)  # type: ignore[misc]

    def _build_replay_buffer(self) -> Any:
        """Makes verl's buffer drop a choice of failed groups alone, which have no rollouts."""
        buffer = super()._build_replay_buffer()  # type: ignore[misc]
        select = buffer._select_prompt_uids

        def select_some(partition_id: str, choice: set[str], size: int) -> Any:
            found = select(partition_id, choice, size)
            if partition_id == "train" and not _rollouts_of(found[0], found[1]):
                failed = len(found[0])
                buffer._clear_groups(partition_id, set(choice))
                self.on_sample_end()  # type: ignore[attr-defined]
                raise NothingCounts(_nothing(), failed)
            return found

        buffer._select_prompt_uids = select_some
        return buffer

    def _compute_metrics(
        self, batch: Any, metrics: dict[str, Any], timing_raw: dict[str, float], global_steps: int, epoch: int
    ) -> None:
        """Computes verl's metrics; of a step that was skipped its times alone."""
        if self._trained_parts:
            super()._compute_metrics(batch, metrics, timing_raw, global_steps=global_steps, epoch=epoch)  # type: ignore[misc]
        else:
            metrics |= {"training/global_step": global_steps, "training/epoch": epoch}
            metrics |= {f"timing_s/{name}": seconds for name, seconds in timing_raw.items()}
        emit.add(catalogue.TRAINING_MASKED, float(not self._trained_parts))

    def _log_rollout_data(self, batch: Any, *args: Any, **kwargs: Any) -> None:
        """Writes verl's copy of the rollouts (`trainer.rollout_data_dir`), unless the step was skipped."""
        if self._trained_parts:
            super()._log_rollout_data(batch, *args, **kwargs)  # type: ignore[misc]


def _nothing() -> KVBatchMeta:
    return KVBatchMeta(partition_id="train", keys=[], tags=[])


def _stand_in(step: int) -> KVBatchMeta:
    """Returns a row without data: verl's loop clears a step's rows from the queue, which refuses an empty list."""
    return tq.kv_put(key=f"skipped-{step}_0_0", partition_id="train", tag={"is_padding": True})


def _rollouts_of(groups: Sequence[str], rollouts: Mapping[str, Any]) -> list[str]:
    """Returns the keys `<group>_<rollout>_<output>` of these groups."""
    chosen = set(groups)
    return [key for key in rollouts if key.split("_")[0] in chosen]


def _counts(batch: KVBatchMeta) -> bool:
    """True when a rollout of a batch has a token that is trained on."""
    for start in range(0, len(batch.keys), FETCHED_MASKS):
        keys = batch.keys[start : start + FETCHED_MASKS]
        masks = tq.kv_batch_get(keys=keys, partition_id=batch.partition_id, select_fields=["response_mask"])
        # nested tensor: one 0/1 mask of shape (response tokens,) a rollout, each of its own length
        if any(bool(mask.any()) for mask in masks["response_mask"].unbind()):
            return True
    return False


def _why(found: NothingCounts) -> str:
    """Returns a line on why no rollout counts."""
    if found.failed:
        return f"its {found.failed} groups have failed; the rollout workers' log has the errors"
    batch = found.batch
    fields = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["extra_fields"])
    reported = [getattr(item, "data", item)["reward_extra_info"] for item in fields["extra_fields"]]
    ungraded, faults = (int(sum(item[name] for item in reported)) for name in ("ungraded", "infrastructure"))
    return (
        f"all of its {len(reported)} rollouts are masked: {ungraded} without a grade, {faults} ended by "
        f"infrastructure, {len(reported) - ungraded - faults} for how they ended (reward_preset.mask_finishes)"
    )
