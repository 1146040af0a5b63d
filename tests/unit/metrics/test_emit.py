"""Metrics reach the tally of verl's trackers; without Ray, nothing is emitted."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from ray.util import metrics

from codedance_verl.metrics import catalogue, emit
from codedance_verl.metrics.emit import SWITCH_VARIABLE, Recorder, for_trackers


def test_without_ray_nothing_is_kept() -> None:
    emit.add(catalogue.JUDGE_REQUESTS)
    assert emit.drain() == {}


def test_metrics_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH_VARIABLE, "0")
    recorder = Recorder(lambda: True)
    recorder.add(catalogue.JUDGE_REQUESTS)
    assert recorder.drain() == {}


def test_trackers_get_sums_of_counters_and_means_of_the_others_over_all_processes() -> None:
    first, second = Recorder(lambda: True), Recorder(lambda: True)
    for recorder, amounts in ((first, (1, 2)), (second, (6,))):
        for amount in amounts:
            recorder.add(catalogue.ROLLOUT_TURNS, amount, split="train")
            recorder.set_gauge(catalogue.REWARD_TERM, amount, split="train", term="score")
            recorder.observe(catalogue.JUDGE_SECONDS, amount)
    merged = for_trackers([first.drain(), second.drain(), {}])
    assert merged == {
        "codedance/rollout/turns_total/train": 9.0,
        "codedance/reward/term/train/score": 3.0,
        "codedance/judge/seconds": 3.0,
    }
    assert first.drain() == {}


def test_a_counter_that_does_not_grow_is_told_nevertheless() -> None:
    recorder = Recorder(lambda: True)
    recorder.add(catalogue.JUDGE_REQUESTS, 0)
    assert for_trackers([recorder.drain()]) == {"codedance/judge/requests_total": 0.0}


def test_rays_counters_take_a_growth_of_zero_by_what_is_used_of_them() -> None:
    """Pins the private `_record` of Ray: what it gets, and that `inc` itself still refuses 0."""
    counter = metrics.Counter("codedance_test_growth", "A test.", tag_keys=("run",))
    told: list[tuple[float, dict[str, str]]] = []
    counter._metric = SimpleNamespace(record=lambda value, tags: told.append((value, tags)))
    for amount in (0, 2.5):
        emit._grow(counter, amount, {"run": "a"})
    assert told == [(0, {"run": "a"}), (2.5, {"run": "a"})]
    with pytest.raises(ValueError, match="must be >0"):
        counter.inc(0, {"run": "a"})


def test_a_ray_without_it_is_named() -> None:
    with pytest.raises(RuntimeError, match=r"Ray's Counter has no _record.*written for Ray"):
        emit._grow(object(), 1.0, {})


def test_a_verb_of_another_kind_is_refused() -> None:
    recorder = Recorder(lambda: True)
    with pytest.raises(AssertionError):
        recorder.set_gauge(catalogue.JUDGE_REQUESTS, 1.0)


def test_a_label_that_is_missing_is_an_error() -> None:
    recorder = Recorder(lambda: True)
    with pytest.raises(ValueError, match="split"):
        recorder.add(catalogue.ROLLOUT_TURNS)


AGAIN = 0.02


class Gauge:
    """Stands for Ray's, which forgets what it is not told again."""

    def __init__(self, name: str, *_: object, **__: object) -> None:
        self.name = name

    def set(self, value: float, tags: dict[str, str]) -> None:
        told.append((self.name, tags.get("term"), value))


told: list[tuple[str, str | None, float]] = []


@pytest.fixture
def of_ray(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None, float]]:
    """Calls that set Ray's gauges: name, term, value."""
    monkeypatch.setattr("ray.util.metrics.Gauge", Gauge)
    told.clear()
    return told


def _until(done: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not done():
        assert time.monotonic() < deadline
        time.sleep(AGAIN)


def _tellers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "gauges"]


def _term(recorder: Recorder, term: str, value: float) -> None:
    recorder.set_gauge(catalogue.REWARD_TERM, value, split="train", term=term)


def test_the_last_value_of_every_gauge_is_told_again(of_ray: list[Any]) -> None:
    recorder = Recorder(lambda: True, AGAIN)
    for value in (1.0, 2.0):
        _term(recorder, "score", value)
    recorder.set_gauge(catalogue.REWARD_TERM, 3.0, term="format", split="train")
    recorder.set_gauge(catalogue.REWARD_TERM, 4.0, split="train", term="format")  # the same series
    recorder.set_gauge(catalogue.TRAINING_STARTED, math.nan)
    of_ray.clear()
    _until(lambda: len(of_ray) >= 9)
    recorder.switch(False)
    assert {(term, value) for _, term, value in of_ray if term} == {("score", 2.0), ("format", 4.0)}
    again = [value for name, _, value in of_ray if name == catalogue.TRAINING_STARTED.name]
    assert len(again) >= 2 and all(map(math.isnan, again))


def test_what_is_told_again_does_not_count_in_trackers(of_ray: list[Any]) -> None:
    recorder = Recorder(lambda: True, AGAIN)
    _term(recorder, "score", 1.0)
    _until(lambda: len(of_ray) >= 3)
    _term(recorder, "score", 4.0)
    recorder.switch(False)
    (sample,) = recorder.drain().values()
    assert (sample.total, sample.count) == (5.0, 2)


@pytest.mark.parametrize("cause", ["switched off", "Ray is down", "the recorder is gone"])
def test_the_telling_ends_with_its_cause_and_old_values_stay_untold(of_ray: list[Any], cause: str) -> None:
    before = set(_tellers())
    up = [True]
    recorder = Recorder(lambda: up[0], AGAIN)
    _term(recorder, "score", 1.0)
    (teller,) = set(_tellers()) - before
    if cause == "the recorder is gone":
        del recorder
        _until(lambda: not teller.is_alive())
        return
    up[0] = cause != "Ray is down"
    recorder.switch(cause != "switched off")
    _until(lambda: not teller.is_alive())
    up[0] = True
    recorder.switch(True)
    of_ray.clear()
    _term(recorder, "format", 2.0)
    _until(lambda: len(of_ray) >= 3)
    recorder.switch(False)
    assert {term for _, term, _ in of_ray} == {"format"}


def test_the_child_of_a_fork_tells_what_it_has_to_and_not_what_its_parent_had(
    of_ray: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = emit._recorder
    monkeypatch.setattr(recorder, "_is_on", lambda: True)
    monkeypatch.setattr(recorder, "_refresh_s", AGAIN)
    monkeypatch.setattr(recorder, "_ray_metrics", {})
    _term(recorder, "score", 1.0)
    with recorder._lock:  # as if a thread were telling at that very moment
        child = os.fork()
        if child == 0:
            os._exit(_told_by_the_child(recorder, of_ray))
    recorder.drain()
    assert os.waitpid(child, 0)[1] == 0


def _told_by_the_child(recorder: Recorder, of_ray: list[Any]) -> int:
    """0 when it tells what it was told after the fork, again, and nothing else."""
    of_ray.clear()
    threading.Timer(10, os._exit, [2]).start()  # whatever keeps it waiting: this process must not run on as pytest
    _term(recorder, "format", 2.0)
    while len(of_ray) < 3:
        time.sleep(AGAIN)
    return int({term for _, term, _ in of_ray} != {"format"})
