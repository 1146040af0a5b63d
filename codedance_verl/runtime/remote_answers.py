"""Answers of Ray actors within a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import ray

K = TypeVar("K")


def answers_within(calls: Mapping[K, Any], timeout_s: float, get: Callable[[Any], Any] | None = None) -> dict[K, Any]:
    """Returns the answers that are there within `timeout_s`, by the keys of their calls.

    Blocks until all are there, or the time is over. A call that failed is there with its exception.

    Args:
        calls: Ray's references.
        timeout_s: seconds; 0 takes what is there already.
        get: returns the result of a finished call, or raises; `ray.get` by default.
    """
    if not calls:  # `ray.wait` refuses an empty list
        return {}
    done, _ = ray.wait(list(calls.values()), num_returns=len(calls), timeout=timeout_s)
    there = set(done)  # a call a node or a worker: too many to look each up in a list
    return {key: _outcome(call, get or ray.get) for key, call in calls.items() if call in there}


def _outcome(call: Any, get: Callable[[Any], Any]) -> Any:
    try:
        return get(call)
    except Exception as error:
        return error
