"""Where a run stops and what it saves, on a stand-in for verl's loop that is interrupted at a chosen point."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from ray.exceptions import ActorDiedError
from transfer_queue import KVBatchMeta

from codedance_verl.errors import UserError
from codedance_verl.metrics import emit
from codedance_verl.metrics.catalogue import Kind
from codedance_verl.metrics.emit import Recorder, Sample
from codedance_verl.runtime.checkpoints import folder_of, repair_tracker, seal, whole_steps
from codedance_verl.runtime.run_limits import SAVE_FILE, STOP_FILE, Stopped
from codedance_verl.trainer import fault_tolerance as module
from codedance_verl.trainer import masked_steps
from codedance_verl.trainer.fault_tolerance import DATA_STATE, STALL_REPORT, WORKER_STATE, _place, fault_tolerant
from codedance_verl.trainer.health_check import RolloutWorkerDied
from codedance_verl.trainer.masked_steps import NothingCounts


class Remote:
    """A method of a Ray actor, here and now."""

    def __init__(self, method: Any) -> None:
        self.remote = method


class Worker:
    """A rollout worker that has counted the steps it was drawn for."""

    def __init__(self) -> None:
        self.count = 0
        self.abandoned = 0
        self.heard: list[str] = []
        self.numbers: list[int] = []
        self.pause = Remote(lambda number: self.hear("pause", number))
        self.resume = Remote(lambda number: self.hear("resume", number))
        self.state = Remote(lambda: {"count": self.count})
        self.restore = Remote(lambda state: setattr(self, "count", state["count"]))
        self.waiting = Remote(lambda: "2 wait for vLLM")
        self.abandon = Remote(lambda: setattr(self, "abandoned", self.abandoned + 1))
        self.__ray_ready__ = Remote(self.ready)

    def hear(self, what: str, number: int) -> None:
        self.heard.append(what)
        self.numbers.append(number)

    def ready(self) -> Any:
        return "alive"


class Nodes:
    """The sandbox nodes, which have counted this."""

    def __init__(self, *tallies: Any) -> None:
        self.tallies = list(tallies)
        self.asked = 0

    def ask(self) -> None:
        self.asked += 1

    def take(self, timeout_s: float) -> list[Any]:
        return self.tallies


class Loop:
    """verl's `PPOTrainer` as far as `FaultTolerantTrainer` meets it. `at`: what happens when, by (point, step)."""

    def __init__(self, config: DictConfig) -> None:
        self.config, self.trainer_mode, self.local_trigger_step = config, config.trainer.v1.trainer_mode, 0
        self.at: dict[tuple[str, int], Any] = {}
        self.logged: list[int] = []
        self.drawn, self.parameter_sync_step = 0, 1
        self.global_steps, self.total_training_steps = config.first, 5
        self.train_dataloader = SimpleNamespace(state_dict=lambda: {"drawn": self.drawn})
        self.replay_buffer = self._build_replay_buffer()

    def _build_replay_buffer(self) -> Any:
        keys = {name: defaultdict(set) for name in ("pending_keys", "running_keys", "finished_keys", "failure_keys")}
        return SimpleNamespace(_wait_for_next_poll=lambda *_: 0.0, _select_prompt_uids=None, **keys)

    def _reach(self, point: str) -> None:
        self.at.get((point, self.global_steps), lambda: None)()

    def fit(self, agent_loop_manager: Any) -> None:
        self.global_steps += 1
        while self.global_steps <= 5:
            self.on_step_begin()
            self.step({}, {})
            self.on_step_end()
            if self.config.save_every and self.global_steps % self.config.save_every == 0:
                self._save_checkpoint()
            self.on_validate_begin()
            self._validate()
            self.logged.append(self.global_steps)
            self.global_steps += 1

    def on_step_begin(self) -> None:
        self._reach("begin")

    def on_validate_begin(self) -> None:
        pass

    def on_sample_end(self) -> None:
        self._tell("training begins")

    def on_step_end(self) -> None:
        self._tell("weights are sent")

    def _tell(self, what: str) -> None:
        for worker in self.agent_loop_manager.agent_loop_workers:  # type: ignore[attr-defined]
            worker.heard.append(what)

    def step(self, metrics: dict[str, Any], timing_raw: dict[str, float]) -> None:
        self.drawn += 1
        for worker in self.agent_loop_manager.agent_loop_workers:  # type: ignore[attr-defined]
            worker.count += 1
        self._reach("rollouts")
        self.replay_buffer._wait_for_next_poll("train", 0.0)
        self.on_sample_end()
        self._step_once({})
        self.local_trigger_step = self.config.parts - 1
        self._reach("update")

    def _step_once(self, metrics: dict[str, Any]) -> None:
        self._reach("training")

    def _compute_metrics(self, batch: Any, metrics: dict[str, Any], *_: Any, **__: Any) -> None:
        metrics["timing_s/step"] = 4.0

    def _validate(self) -> dict[str, float]:
        self._reach("validation")
        self.replay_buffer._wait_for_next_poll("val", 0.0)
        return {"val": 1.0}

    def _save_checkpoint(self) -> None:
        folder = folder_of(Path(self.config.trainer.default_local_dir), self.global_steps)
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(self.train_dataloader.state_dict(), folder / DATA_STATE)


@pytest.fixture(autouse=True)
def _without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.ray, "get", lambda found, timeout=None: found)
    monkeypatch.setattr(module.ray, "wait", lambda calls, **_: (calls, []))


def make(
    folder: Path, save_every: int = 0, keep: int | None = None, first: int = 0, parts: int = 1, **trainer: Any
) -> Any:
    config = OmegaConf.create(
        {
            "run_dir": str(folder),
            "step_limit_s": None,
            "deterministic": False,
            "save_every": save_every,
            "first": first,
            "parts": parts,
            "monitors": {"max_masked_steps": 2},
            "actor_rollout_ref": {"rollout": {"free_cache_engine": False}},
            "trainer": {
                "default_local_dir": str(folder / "checkpoints"),
                "max_actor_ckpt_to_keep": keep,
                "max_critic_ckpt_to_keep": keep,
                "resume_mode": "auto",
                "v1": {"trainer_mode": "sync"},
                **trainer,
            },
        }
    )
    return fault_tolerant(Loop)(config)


def run(trainer: Any, folder: Path, stop_at: tuple[str, int] | None = None) -> Worker:
    worker = Worker()
    if stop_at is not None:
        trainer.at[stop_at] = (folder / SAVE_FILE).touch
    trainer.fit(SimpleNamespace(agent_loop_workers=[worker]))
    return worker


@pytest.mark.parametrize(
    ("point", "saved"), [("begin", 2), ("rollouts", 2), ("update", 3), ("validation", 3)], ids=lambda item: str(item)
)
def test_a_stop_saves_the_last_finished_step_as_it_was_then(tmp_path: Path, point: str, saved: int) -> None:
    trainer = make(tmp_path)
    with pytest.raises(Stopped, match=rf"^the last finished step, {saved}, is saved; start the run again to resume$"):
        run(trainer, tmp_path, (point, 3))
    assert whole_steps(tmp_path / "checkpoints") == [saved]
    folder = folder_of(tmp_path / "checkpoints", saved)
    assert torch.load(folder / DATA_STATE) == {"drawn": saved}
    assert json.loads((folder / WORKER_STATE).read_text()) == [{"count": saved}]
    assert trainer.logged == list(range(1, saved + 1)), "a finished step keeps its metrics"


def test_a_validation_is_broken_off_also_after_a_step_of_several_parts(tmp_path: Path) -> None:
    trainer = make(tmp_path, parts=2)
    validate, broken_off = trainer._validate, list[bool]()

    def validates() -> dict[str, float]:
        found: dict[str, float] = validate()
        broken_off.append(not found)
        return found

    trainer._validate = validates
    with pytest.raises(Stopped, match="step, 3, is saved"):
        run(trainer, tmp_path, ("validation", 3))
    assert broken_off == [False, False, True]


def test_rollouts_under_way_are_dropped_before_it_is_saved(tmp_path: Path) -> None:
    trainer = make(tmp_path)
    with pytest.raises(Stopped):
        run(trainer, tmp_path, ("rollouts", 2))
    assert trainer.agent_loop_manager.agent_loop_workers[0].abandoned == 1


def test_what_is_saved_is_not_saved_again(tmp_path: Path) -> None:
    trainer = make(tmp_path, save_every=2)
    saved_at = (folder_of(tmp_path / "checkpoints", 2) / "complete.json").stat
    with pytest.raises(Stopped, match="step, 2, is saved"):
        run(trainer, tmp_path, ("rollouts", 3))
    assert saved_at() and whole_steps(tmp_path / "checkpoints") == [2]
    assert trainer.agent_loop_manager.agent_loop_workers[0].abandoned == 0


def test_a_stop_before_the_first_step_leaves_what_there_was(tmp_path: Path) -> None:
    with pytest.raises(Stopped, match=r"^no step was finished, so nothing had to be saved; start the run again$"):
        run(make(tmp_path), tmp_path, ("begin", 1))
    assert not (tmp_path / "checkpoints").exists()


def test_verl_is_not_left_to_remove_checkpoints(tmp_path: Path) -> None:
    trainer = make(tmp_path, save_every=1, keep=2)
    assert trainer.config.trainer.max_actor_ckpt_to_keep is None
    assert trainer.config.trainer.max_critic_ckpt_to_keep is None
    run(trainer, tmp_path)
    assert whole_steps(tmp_path / "checkpoints") == [4, 5]


@pytest.mark.parametrize("mode", ["auto", "resume_path"])
def test_workers_go_on_counting_where_the_checkpoint_left_them(tmp_path: Path, mode: str) -> None:
    first = make(tmp_path, save_every=3)
    run(first, tmp_path)
    path = str(folder_of(tmp_path / "checkpoints", 3))
    resumed = make(tmp_path, first=3, resume_mode=mode, resume_from_path=path)
    assert run(resumed, tmp_path).count == 5


@pytest.mark.parametrize(("mode", "first"), [("disable", 0), ("resume_path", 2)])
def test_a_run_that_began_anew_keeps_what_it_saves(tmp_path: Path, mode: str, first: int) -> None:
    """Of an earlier run in the same folder there are checkpoints of later steps."""
    checkpoints = tmp_path / "checkpoints"
    earlier = folder_of(checkpoints, 100)
    earlier.mkdir(parents=True)
    seal(earlier)
    path = str(folder_of(checkpoints, first))
    run(make(tmp_path, save_every=1, keep=1, first=first, resume_mode=mode, resume_from_path=path), tmp_path)
    assert whole_steps(checkpoints) == [5] and repair_tracker(checkpoints) == 5
    assert whole_steps(checkpoints / "superseded_0") == [100]


@pytest.mark.parametrize("mode", ["disable", "resume_path"])
def test_a_run_that_does_not_begin_with_what_it_saved_says_how_to_go_on(tmp_path: Path, mode: str) -> None:
    trainer = make(tmp_path, resume_mode=mode, resume_from_path="/runs/b/checkpoints/global_step_0")
    with pytest.raises(Stopped, match=rf"is saved; .* with trainer\.resume_mode=auto to resume, as with {mode} "):
        run(trainer, tmp_path, ("begin", 3))


@pytest.mark.parametrize("earlier", [(60,), (1, 60)], ids=["of other steps", "of the same step too"])
def test_killed_in_its_first_save_a_run_that_began_anew_has_what_there_was(
    tmp_path: Path, earlier: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = tmp_path / "checkpoints"
    for step in earlier:
        folder_of(checkpoints, step).mkdir(parents=True)
        seal(folder_of(checkpoints, step))

    def killed(_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Loop, "_save_checkpoint", killed)
    with pytest.raises(KeyboardInterrupt):
        run(make(tmp_path, save_every=1, resume_mode="disable"), tmp_path)
    assert whole_steps(checkpoints) == [60] and repair_tracker(checkpoints) == 60


class DeadWorker(Worker):
    """Its process has ended after the step before."""

    def __init__(self) -> None:
        super().__init__()
        self.abandon = Remote(ActorDiedError)

    def ready(self) -> Any:
        return ActorDiedError() if self.count > 1 else "alive"


def test_the_death_of_a_rollout_worker_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def get(found: Any, timeout: float | None = None) -> Any:
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(module.ray, "get", get)
    trainer = make(tmp_path, save_every=1)
    with pytest.raises(RolloutWorkerDied, match=r"^rollout worker 1 has died .* to resume from the last checkpoint$"):
        trainer.fit(SimpleNamespace(agent_loop_workers=[Worker(), DeadWorker()]))
    assert whole_steps(tmp_path / "checkpoints") == [1, 2]

    stopped = make(tmp_path / "stopped")
    stopped.at["begin", 2] = (tmp_path / "stopped" / SAVE_FILE).touch
    (tmp_path / "stopped").mkdir()
    with pytest.raises(Stopped):
        stopped.fit(SimpleNamespace(agent_loop_workers=[Worker(), DeadWorker()]))
    assert whole_steps(tmp_path / "stopped" / "checkpoints") == [1], "a stop saves without the dead one"


def test_rollouts_are_put_in_the_order_they_were_drawn_in() -> None:
    keys = ["1-2_0_0", "1-1_10_0", "1-1_2_1", "1-1_2_0"]
    assert sorted(keys, key=_place) == ["1-1_2_0", "1-1_2_1", "1-1_10_0", "1-2_0_0"]


def test_a_step_that_stalls_ends_the_run_with_who_waits_for_what(tmp_path: Path) -> None:
    trainer = make(tmp_path)
    trainer.config.step_limit_s = 60.0
    trainer.agent_loop_manager = SimpleNamespace(agent_loop_workers=[Worker()])
    trainer.replay_buffer.running_keys["train"] = {"a", "b"}
    trainer._end_stalled("step 3")
    report = (tmp_path / STALL_REPORT).read_text()
    assert report.startswith("step 3 has taken more than 60 s\n")
    assert "groups for training: 0 wait, 2 are in flight, 0 finished, 0 failed" in report
    assert "rollout worker 0:\n2 wait for vLLM" in report
    assert "test_a_step_that_stalls" in report
    assert (tmp_path / STOP_FILE).read_text().startswith("step_limit_s=60: step 3 took longer; ")


def test_a_stalled_step_ends_the_run_also_where_the_report_cannot_be_written(tmp_path: Path) -> None:
    trainer = make(tmp_path)
    trainer.config.step_limit_s = 60.0
    trainer.agent_loop_manager = SimpleNamespace(agent_loop_workers=[])
    (tmp_path / STALL_REPORT).mkdir()
    trainer._end_stalled("step 3")
    assert (tmp_path / STOP_FILE).read_text().startswith("step_limit_s=60: step 3 took longer; ")


def test_trackers_get_what_all_processes_have_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(lambda: True)
    for name in ("add", "set_gauge", "observe", "drain"):
        monkeypatch.setattr(emit, name, getattr(recorder, name))
    finished = {"codedance/rollout/trajectories_total/train/answer": Sample(Kind.COUNTER, total=8.0, count=2)}
    workers = [SimpleNamespace(take_metrics=Remote(object)) for _ in range(2)]
    monkeypatch.setattr(module.ray, "get", lambda reference, timeout=None: finished)
    trainer, metrics = make(tmp_path), {"critic/score/mean": 0.5}
    trainer.agent_loop_manager = SimpleNamespace(agent_loop_workers=workers)
    trainer._nodes = Nodes({"codedance/sandbox/calls_total/ok": Sample(Kind.COUNTER, total=5.0, count=5)})
    trainer._trained_parts = 1
    trainer._compute_metrics(None, metrics, {}, global_steps=3, epoch=0)
    assert metrics["codedance/rollout/trajectories_total/train/answer"] == 16.0
    assert metrics["codedance/training/trajectories_per_second"] == 4.0
    assert metrics["codedance/sandbox/calls_total/ok"] == 5.0 and trainer._nodes.asked == 1
    assert metrics["codedance/training/score"] == metrics["critic/score/mean"] == 0.5


def all_masked() -> None:
    raise NothingCounts(KVBatchMeta(partition_id="train", keys=[], tags=[]), failed=4)


@pytest.fixture
def _queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masked_steps.tq, "kv_put", lambda key, **_: KVBatchMeta(keys=[key], tags=[{}]))


@pytest.mark.usefixtures("_queue")
def test_too_many_masked_steps_in_a_row_end_the_run_and_the_last_one_is_saved(tmp_path: Path) -> None:
    trainer = make(tmp_path)
    trainer.at = dict.fromkeys([("training", 2), ("training", 3)], all_masked)
    told = r"^monitors\.max_masked_steps=2: of 2 steps in a row no rollout .* step, 3, is saved; start the run again"
    with pytest.raises(UserError, match=told):
        run(trainer, tmp_path)
    assert whole_steps(tmp_path / "checkpoints") == [3]


@pytest.mark.usefixtures("_queue")
def test_masked_steps_with_others_in_between_end_no_run(tmp_path: Path) -> None:
    trainer = make(tmp_path)
    trainer.at = dict.fromkeys([("training", 1), ("training", 3), ("training", 5)], all_masked)
    run(trainer, tmp_path)
    assert trainer.logged == [1, 2, 3, 4, 5] and trainer.masked_in_a_row == 1


@pytest.mark.usefixtures("_queue")
def test_without_a_limit_any_number_of_steps_is_skipped(tmp_path: Path) -> None:
    trainer = make(tmp_path)
    trainer.config.monitors.max_masked_steps = None
    trainer.at = {("training", step): all_masked for step in range(1, 6)}
    run(trainer, tmp_path)
    assert trainer.logged == [1, 2, 3, 4, 5] and trainer.masked_in_a_row == 5


@pytest.mark.parametrize(
    ("mode", "heard"),
    [
        ("sync", ["training begins", "weights are sent"]),
        ("colocate_async", ["pause", "training begins", "pause", "weights are sent", "resume"]),
        ("separate_async", ["training begins", "pause", "weights are sent", "resume"]),
    ],
)
def test_rollouts_are_paused_while_training_has_what_they_wait_for(tmp_path: Path, mode: str, heard: list[str]) -> None:
    trainer = make(tmp_path, v1={"trainer_mode": mode})
    worker = run(trainer, tmp_path)
    assert worker.heard == heard * 5
    assert worker.numbers == sorted(set(worker.numbers)), "a worker can tell one that was overtaken"
