"""What is told reaches the tally of verl's trackers; without Ray, nothing is told."""

from __future__ import annotations

import pytest

from codedance_verl.metrics import catalogue, emit
from codedance_verl.metrics.emit import SWITCH_VARIABLE, Recorder, for_trackers


def test_without_ray_nothing_is_kept() -> None:
    emit.add(catalogue.JUDGE_REQUESTS)
    assert emit.take() == {}


def test_metrics_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH_VARIABLE, "0")
    recorder = Recorder(lambda: True)
    recorder.add(catalogue.JUDGE_REQUESTS)
    assert recorder.take() == {}


def test_trackers_get_sums_of_counters_and_means_of_the_others_over_all_processes() -> None:
    first, second = Recorder(lambda: True), Recorder(lambda: True)
    for recorder, amounts in ((first, (1, 2)), (second, (6,))):
        for amount in amounts:
            recorder.add(catalogue.ROLLOUT_TURNS, amount, split="train")
            recorder.put(catalogue.REWARD_TERM, amount, split="train", term="score")
            recorder.observe(catalogue.JUDGE_SECONDS, amount)
    merged = for_trackers([first.take(), second.take(), {}])
    assert merged == {
        "codedance/rollout/turns_total/train": 9.0,
        "codedance/reward/term/train/score": 3.0,
        "codedance/judge/seconds": 3.0,
    }
    assert first.take() == {}


def test_a_counter_that_does_not_grow_is_told_nevertheless() -> None:
    recorder = Recorder(lambda: True)
    recorder.add(catalogue.JUDGE_REQUESTS, 0)
    assert for_trackers([recorder.take()]) == {"codedance/judge/requests_total": 0.0}


def test_a_verb_of_another_kind_is_refused() -> None:
    recorder = Recorder(lambda: True)
    with pytest.raises(AssertionError):
        recorder.put(catalogue.JUDGE_REQUESTS, 1.0)


def test_a_label_that_is_missing_is_an_error() -> None:
    recorder = Recorder(lambda: True)
    with pytest.raises(ValueError, match="split"):
        recorder.add(catalogue.ROLLOUT_TURNS)
