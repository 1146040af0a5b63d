"""Emission of metrics: to Ray, which exposes them to Prometheus, and to a tally for verl's trackers once a step.

Does nothing where Ray is not initialised. A value costs about 5 us; nothing is emitted token by token.

Ray forgets a gauge that nobody has set since two of its reports (`_gauge_metric_ttl_s` of its
`OpenTelemetryMetricRecorder`, 20 s by default), so a thread sets the last value of every gauge again and again.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from codedance_verl.metrics.catalogue import ROLLOUT_TRAJECTORIES, RUN, Kind, Metric
from codedance_verl.runtime.watchdog import Watchdog

RUN_VARIABLE = "CODEDANCE_RUN"
"""Environment variable with the name of the run, in every process of it."""

SWITCH_VARIABLE = "CODEDANCE_METRICS"
"""Environment variable; "0" switches all metrics off."""

REFRESH_SECONDS = 5.0
"""Interval at which gauges are set again: half that of Ray's reports."""


@dataclass
class Sample:
    """Sum and number of the values of one series since the last `drain`."""

    kind: Kind
    total: float = 0.0
    count: int = 0


Tally = Mapping[str, Sample]
"""Samples by their name in verl's trackers."""


def _ray_is_up() -> bool:
    ray = sys.modules.get("ray")  # a process that has not imported it has no Ray
    return ray is not None and bool(ray.is_initialized())


Series = tuple[str, frozenset[tuple[str, str]]]
"""A metric's name, and its labels with their values."""


class Recorder:
    """Emitter of metric values, for any thread. The labels are those of the metric; `run` is added.

    Does nothing while `is_on` returns false. Gauges are set again every `refresh_s` seconds; once metrics have been
    off, the values of before are not.
    """

    def __init__(self, is_on: Callable[[], bool] = _ray_is_up, refresh_s: float = REFRESH_SECONDS) -> None:
        self._is_on = is_on
        self._refresh_s = refresh_s
        self._wanted = os.environ.get(SWITCH_VARIABLE, "1") != "0"
        self._run = os.environ.get(RUN_VARIABLE, "none")
        self._ray_metrics: dict[str, Any] = {}
        self._tally: dict[str, Sample] = {}
        self.forget()

    def add(self, metric: Metric, amount: float = 1.0, **labels: str) -> None:
        """Adds `amount`, 0 or more, to a counter."""
        assert metric.kind is Kind.COUNTER
        self._emit(metric, amount, labels)

    def set_gauge(self, metric: Metric, value: float, **labels: str) -> None:
        """Sets a gauge."""
        assert metric.kind is Kind.GAUGE
        self._emit(metric, value, labels)

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        """Adds a value to a histogram."""
        assert metric.kind is Kind.HISTOGRAM
        self._emit(metric, value, labels)

    def switch(self, on: bool) -> None:
        """Switches metrics on or off in this process."""
        self._wanted = on

    def forget(self) -> None:
        """Forgets all gauges. For the child of a fork, in which the thread of its parent does not run."""
        self._lock = threading.Lock()
        self._gauges: dict[Series, float] = {}
        self._refresher: Watchdog | None = None

    def drain(self) -> dict[str, Sample]:
        """Returns the samples since the last call."""
        taken, self._tally = self._tally, {}
        return taken

    def _emit(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        if not self._is_active:
            return
        tags = {RUN: self._run, **labels}
        # Ray's objects are made at the first value: before `ray.init` they could not be.
        target = self._ray_metrics.get(metric.name) or self._made(metric)
        match metric.kind:
            case Kind.COUNTER:
                _grow(target, value, tags)
            case Kind.GAUGE:
                self._set(target, metric, value, tags)
            case Kind.HISTOGRAM:
                target.observe(value, tags)
        # Series of trackers have no labels: their values become parts of the name.
        name = "/".join([metric.tracker, *(labels[key] for key in metric.labels)])
        sample = self._tally.setdefault(name, Sample(metric.kind))
        sample.total += value
        sample.count += 1

    @property
    def _is_active(self) -> bool:
        return self._wanted and self._is_on()

    def _set(self, target: Any, metric: Metric, value: float, tags: dict[str, str]) -> None:
        with self._lock:  # else the thread could put an older value over this one
            target.set(value, tags)
            self._gauges[metric.name, frozenset(tags.items())] = value
            if self._refresher is None:
                # a weak reference: the thread must not keep a recorder alive
                refresh = functools.partial(_refresh, weakref.ref(self))
                self._refresher = Watchdog(self._refresh_s, refresh, "gauges")

    def _refresh_gauges(self) -> bool:
        """Sets the last values in Ray once more. Returns false where metrics are off; the values are dropped then."""
        with self._lock:
            if not self._is_active:
                self._gauges.clear()
                self._refresher = None
                return False
            series = list(self._gauges)
        for name, tags in series:
            with self._lock:  # for each alone: other threads do not wait for all of them
                self._ray_metrics[name].set(self._gauges[name, tags], dict(tags))
        return True

    def _made(self, metric: Metric) -> Any:
        from ray.util import metrics

        tags = (RUN, *metric.labels)
        text = f"{metric.description} Unit: {metric.unit}."
        made: Any
        match metric.kind:
            case Kind.COUNTER:
                made = metrics.Counter(metric.name, text, tag_keys=tags)
            case Kind.GAUGE:
                made = metrics.Gauge(metric.name, text, tag_keys=tags)
            case Kind.HISTOGRAM:
                made = metrics.Histogram(metric.name, text, boundaries=list(metric.buckets), tag_keys=tags)
        self._ray_metrics[metric.name] = made
        return made


def _grow(counter: Any, amount: float, tags: dict[str, str]) -> None:
    """Adds `amount`, 0 or more, to a counter of Ray. Raises `RuntimeError` for a Ray without `_record`.

    Private, as the public `Counter.inc` of Ray 2.60 refuses 0, without which Prometheus misses a series' first growth.
    """
    record = getattr(counter, "_record", None)
    if record is None:
        raise RuntimeError("Ray's Counter has no _record: codedance_verl.metrics.emit was written for Ray 2.60")
    record(amount, tags)


def _refresh(recorder: weakref.ref[Recorder]) -> bool:
    """Sets all gauges again; True, which ends the thread, once metrics are off or the recorder is gone."""
    found = recorder()
    return found is None or not found._refresh_gauges()


def for_trackers(tallies: Iterable[Tally]) -> dict[str, float]:
    """Returns one number a series over all processes: the sum of a counter, the mean of gauges and histograms."""
    merged: dict[str, Sample] = {}
    for tally in tallies:
        for name, sample in tally.items():
            whole = merged.setdefault(name, Sample(sample.kind))
            whole.total += sample.total
            whole.count += sample.count
    return {
        # Counters add up over processes; a gauge or histogram of each process is one opinion of the same thing.
        name: sample.total if sample.kind is Kind.COUNTER else sample.total / sample.count
        for name, sample in merged.items()
    }


def finished_trajectories(numbers: Mapping[str, float]) -> float:
    """Returns the number of training trajectories that ended in a step, by its numbers `for_trackers`."""
    return sum(value for name, value in numbers.items() if name.startswith(f"{ROLLOUT_TRAJECTORIES.tracker}/train/"))


_recorder = Recorder()
add, set_gauge, observe = _recorder.add, _recorder.set_gauge, _recorder.observe
drain, switch = _recorder.drain, _recorder.switch
os.register_at_fork(after_in_child=_recorder.forget)
