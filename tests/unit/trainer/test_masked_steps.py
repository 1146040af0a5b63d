"""Steps without a rollout that counts, with verl's own loop over the parts of a step and its own replay buffer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1 import replay_buffer
from verl.trainer.ppo.v1.trainer_base import PPOTrainer

from codedance_verl.metrics import emit
from codedance_verl.metrics.emit import Recorder
from codedance_verl.trainer import masked_steps
from codedance_verl.trainer.masked_steps import FETCHED_MASKS, MaskedSteps


class Queue:
    """verl's queue as far as it is asked here: response masks and reports of rollouts, statuses of groups."""

    def __init__(self) -> None:
        self.masks: dict[str, list[int]] = {}
        self.reports: dict[str, dict[str, float]] = {}
        self.groups: dict[str, str] = {}
        self.stand_ins: list[str] = []
        self.fetched = 0

    def add(self, group: str, *masks: list[int], **report: float) -> None:
        """A finished group with these rollouts."""
        self.groups[group] = "finished"
        for number, mask in enumerate(masks):
            key = f"{group}_{number}_0"
            self.masks[key] = mask
            self.reports[key] = {"ungraded": 0.0, "infrastructure": 0.0, **report}

    def kv_list(self) -> dict[str, dict[str, dict[str, Any]]]:
        prompts = {
            name: {"is_prompt": True, "status": status, "global_steps": number}  # verl takes the oldest first
            for number, (name, status) in enumerate(self.groups.items())
        }
        return {"train": {**prompts, **{key: {} for key in self.masks}}}

    def kv_batch_get(self, keys: list[str], partition_id: str, select_fields: list[str]) -> dict[str, Any]:
        if select_fields == ["extra_fields"]:
            return {"extra_fields": [{"reward_extra_info": self.reports[key]} for key in keys]}
        self.fetched += len(keys)
        masks = [torch.tensor(self.masks[key]) for key in keys]
        return {"response_mask": torch.nested.as_nested_tensor(masks, layout=torch.jagged)}

    def kv_clear(self, keys: list[str], partition_id: str) -> None:
        assert keys, "Received an empty list as keys."
        for key in keys:
            self.masks.pop(key, None)
            self.groups.pop(key, None)

    def kv_put(self, key: str, partition_id: str, tag: dict[str, Any]) -> KVBatchMeta:
        self.stand_ins.append(key)
        return KVBatchMeta(partition_id=partition_id, keys=[key], tags=[tag])


class Verl(PPOTrainer):  # type: ignore[misc]
    """verl's trainer from its loop over parts on, with a batch to balance and nothing to train it by."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self.parameter_sync_step, self.global_steps, self.timing_raw = config.parts, 7, {}
        self.reward_loop_manager = SimpleNamespace(reward_loop_worker_handles=[])
        self.kept: list[int] = []
        self.actor_rollout_wg = SimpleNamespace(save_model_to_cpu=self.kept.append)
        self.use_reference_policy = self.use_critic = False
        self.trained: list[list[str]] = []
        self.slept = 0
        self.replay_buffer = self._build_replay_buffer()

    def _build_replay_buffer(self) -> Any:
        node = OmegaConf.create({})
        return replay_buffer.ReplayBuffer("sync", node, None, "drop", node, poll_interval=0.0)

    def prepare_step(self) -> dict[str, Any]:
        return {}

    def on_step_end(self) -> None:
        pass

    def on_sample_end(self) -> None:
        self.slept += 1

    def _balance_batch(self, batch: Any, metrics: dict[str, Any]) -> Any:
        return batch

    def _compute_old_log_prob(self, batch: Any, metrics: dict[str, Any]) -> Any:
        return batch

    _compute_advantage = _compute_old_log_prob

    def _update_actor(self, batch: Any, metrics: dict[str, Any]) -> Any:
        self.trained.append(sorted(batch.keys))
        metrics["actor/pg_loss"] = 1.0
        return batch

    def _compute_metrics(self, batch: Any, metrics: dict[str, Any], timing: Any, **_: Any) -> None:
        metrics["critic/score/mean"] = 0.5

    def _log_rollout_data(self, *_: Any) -> None:
        self.trained.append(["logged"])


class Trainer(MaskedSteps, Verl):
    pass


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    queue = Queue()
    monkeypatch.setattr(replay_buffer, "tq", queue)
    monkeypatch.setattr(masked_steps, "tq", queue)
    return queue


def trainer_of(groups: int = 1, parts: int = 1) -> Trainer:
    rollout = {"rollout": {"temperature": 1.0}}
    return Trainer(
        OmegaConf.create(
            {
                "parts": parts,
                "data": {"train_batch_size": groups},
                "actor_rollout_ref": rollout,
                "trainer": {"critic_warmup": 0},
                "monitors": {"max_masked_steps": 3},
                "skip": {"rollout_tq": {"enable": False}},
            }
        )
    )


def test_a_step_with_every_rollout_masked_trains_nothing_and_says_why(
    queue: Queue, capsys: pytest.CaptureFixture[str]
) -> None:
    queue.add("a", [0, 0], [0, 0, 0], ungraded=1.0)
    queue.add("b", [0], [0], infrastructure=1.0)
    trainer = trainer_of(groups=2)
    batch = trainer.step({}, {})
    assert trainer.trained == [] and trainer.masked_in_a_row == 1 and trainer.slept == 1
    assert queue.masks == {}, "its rollouts are left in the queue"
    assert batch.keys == queue.stand_ins == ["skipped-7_0_0"]
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("step 7 is skipped: all of its 4 rollouts are masked: 2 without a grade, 2 ended by infra")


def test_a_step_with_one_rollout_that_counts_is_trained_on(queue: Queue) -> None:
    queue.add("a", [0, 0], [0, 1])
    trainer = trainer_of()
    trainer.masked_in_a_row = 2
    assert trainer.step({}, {}).keys == ["a_0_0", "a_1_0"]
    assert trainer.trained == [["a_0_0", "a_1_0"]] and trainer.masked_in_a_row == 0


def test_masks_are_fetched_until_one_counts(queue: Queue) -> None:
    queue.add("a", *[[1, 1]] * (3 * FETCHED_MASKS))
    trainer_of().step({}, {})
    assert queue.fetched == FETCHED_MASKS


def test_a_step_of_which_every_group_has_failed_is_skipped(queue: Queue, capsys: pytest.CaptureFixture[str]) -> None:
    queue.groups = {"a": "failure", "b": "failure"}
    trainer = trainer_of(groups=2)
    trainer.step({}, {})
    assert trainer.trained == [] and trainer.masked_in_a_row == 1
    assert trainer.slept == 1, "vLLM keeps the device"
    assert queue.groups == {}
    assert capsys.readouterr().out.splitlines() == [
        "step 7 is skipped: its 2 groups have failed; the rollout workers' log has the errors"
    ]


def test_a_masked_part_of_a_step_is_skipped_alone(queue: Queue) -> None:
    queue.add("a", [0], [0])
    queue.add("b", [1], [0])
    trainer = trainer_of(groups=2, parts=2)
    metrics: dict[str, Any] = {}
    assert trainer.step(metrics, {}).keys == ["b_0_0", "b_1_0"]
    assert trainer.trained == [["b_0_0", "b_1_0"]] and trainer.masked_in_a_row == 0
    assert metrics["actor/pg_loss"] == 1.0
    assert trainer.kept == [0], "the second part needs the weights that the first one began with"


def test_a_skipped_step_has_its_times_alone_as_metrics_and_is_counted(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(lambda: True)
    monkeypatch.setattr(emit, "add", recorder.add)
    queue.add("a", [0])
    trainer, metrics = trainer_of(), dict[str, Any]()
    batch = trainer.step(metrics, {})
    trainer._compute_metrics(batch, metrics, {"step": 2.0}, global_steps=7, epoch=1)
    trainer._log_rollout_data(batch, {}, "folder")
    assert metrics["timing_s/step"] == 2.0 and metrics["training/global_step"] == 7
    assert not any(name.startswith(("actor/", "critic/")) for name in metrics) and trainer.trained == []

    queue.add("b", [1])
    batch = trainer.step({}, {})
    trainer._compute_metrics(batch, metrics, {"step": 2.0}, global_steps=8, epoch=1)
    assert metrics["critic/score/mean"] == 0.5
    assert recorder.drain()["codedance/training/masked_steps_total"].total == 1.0


def test_the_limit_is_told_with_its_key_and_null_is_none(queue: Queue) -> None:
    trainer = trainer_of()
    trainer.masked_in_a_row = 3
    assert str(trainer.too_many_masked).startswith(
        "monitors.max_masked_steps=3: of 3 steps in a row no rollout counted"
    )
    trainer.masked_in_a_row = 2
    assert trainer.too_many_masked is None
    trainer.config.monitors.max_masked_steps, trainer.masked_in_a_row = None, 100
    assert trainer.too_many_masked is None
