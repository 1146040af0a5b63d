"""Answers come by the keys of their calls; late ones are left out, failed ones are there with their exceptions."""

from __future__ import annotations

from typing import Any

import pytest

from codedance_verl.runtime import remote_answers
from codedance_verl.runtime.remote_answers import answers_within


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Stands for Ray, in which `late` is not done; has the time limit of each wait."""
    found: list[Any] = []

    def wait(calls: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        assert num_returns == len(calls) > 0
        found.append(timeout)
        return [call for call in calls if call != "late"], ["late"]

    def get(call: Any) -> Any:
        if isinstance(call, Exception):
            raise call
        return f"answer of {call}"

    monkeypatch.setattr(remote_answers.ray, "wait", wait)
    monkeypatch.setattr(remote_answers.ray, "get", get)
    return found


def test_answers_and_failures_come_by_key(waits: list[Any]) -> None:
    failure = RuntimeError("dead")
    assert answers_within({"a": 1, "b": "late", "c": failure}, 2.0) == {"a": "answer of 1", "c": failure}
    assert waits == [2.0]


def test_nothing_is_waited_for_without_calls(waits: list[Any]) -> None:
    assert answers_within({}, 2.0) == {} and waits == []


def test_results_are_read_as_asked() -> None:
    assert answers_within({"a": 1}, 0.0, lambda call: call + 1) == {"a": 2}
