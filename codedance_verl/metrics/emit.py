"""Telling metrics: to Ray, which gives them to Prometheus, and to a tally that goes to verl's trackers once a step.

Does nothing where Ray is not initialised. A value costs about 5 us; nothing is told token by token.

Ray forgets a gauge that nobody has set since two of its reports (`_gauge_metric_ttl_s` of its
`OpenTelemetryMetricRecorder`, 20 s by default), so a thread tells Ray the last value of every gauge again and again.
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

AGAIN_SECONDS = 5.0
"""How often gauges are told again: twice a report of Ray's, which is due every ten seconds."""


@dataclass
class Sample:
    """What was told of one series since the last `drain`: sum and number of the values."""

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
    """Tells values of metrics. `is_on` says whether to; the labels are those of the metric, `run` is added.

    Any thread may tell. Gauges are told again every `again_s` seconds for as long as metrics are on; a break of that
    ends what was told before it.
    """

    def __init__(self, is_on: Callable[[], bool] = _ray_is_up, again_s: float = AGAIN_SECONDS) -> None:
        self._is_on = is_on
        self._again_s = again_s
        self._wanted = os.environ.get(SWITCH_VARIABLE, "1") != "0"
        self._run = os.environ.get(RUN_VARIABLE, "none")
        self._told: dict[str, Any] = {}
        self._tally: dict[str, Sample] = {}
        self.forget()

    def add(self, metric: Metric, amount: float = 1.0, **labels: str) -> None:
        """Have a counter grow by `amount`, 0 or more."""
        assert metric.kind is Kind.COUNTER
        self._tell(metric, amount, labels)

    def set_gauge(self, metric: Metric, value: float, **labels: str) -> None:
        """Set a gauge."""
        assert metric.kind is Kind.GAUGE
        self._tell(metric, value, labels)

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        """Add a value to a histogram."""
        assert metric.kind is Kind.HISTOGRAM
        self._tell(metric, value, labels)

    def switch(self, on: bool) -> None:
        """Switch metrics on or off in this process."""
        self._wanted = on

    def forget(self) -> None:
        """Tell no gauge again that was told before. For the child of a fork: its parent's thread is not there."""
        self._lock = threading.Lock()
        self._gauges: dict[Series, float] = {}
        self._teller: Watchdog | None = None

    def drain(self) -> dict[str, Sample]:
        """What was told since the last call."""
        taken, self._tally = self._tally, {}
        return taken

    def _tell(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        if not self._tells:
            return
        tags = {RUN: self._run, **labels}
        target = self._told.get(metric.name) or self._made(metric)
        match metric.kind:
            case Kind.COUNTER:
                _grow(target, value, tags)
            case Kind.GAUGE:
                self._set(target, metric, value, tags)
            case Kind.HISTOGRAM:
                target.observe(value, tags)
        name = "/".join([metric.tracker, *(labels[key] for key in metric.labels)])
        sample = self._tally.setdefault(name, Sample(metric.kind))
        sample.total += value
        sample.count += 1

    @property
    def _tells(self) -> bool:
        return self._wanted and self._is_on()

    def _set(self, target: Any, metric: Metric, value: float, tags: dict[str, str]) -> None:
        with self._lock:  # else the teller could put an older value over this one
            target.set(value, tags)
            self._gauges[metric.name, frozenset(tags.items())] = value
            if self._teller is None:
                # a weak reference: the thread must not keep a recorder alive
                self._teller = Watchdog(self._again_s, functools.partial(_tell_again, weakref.ref(self)), "gauges")

    def _tell_gauges(self) -> bool:
        """Tell Ray the last values once more. False: metrics are off, and these values are forgotten."""
        with self._lock:
            if not self._tells:
                self._gauges.clear()
                self._teller = None
                return False
            series = list(self._gauges)
        for name, tags in series:
            with self._lock:  # for each alone: who has something to tell does not wait for all of them
                self._told[name].set(self._gauges[name, tags], dict(tags))
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
        self._told[metric.name] = made
        return made


def _grow(counter: Any, amount: float, tags: dict[str, str]) -> None:
    """Adds `amount`, 0 or more, to a counter of Ray. Raises `RuntimeError` for a Ray without `_record`.

    Private, as the public `Counter.inc` of Ray 2.60 refuses 0, without which Prometheus misses a series' first growth.
    """
    record = getattr(counter, "_record", None)
    if record is None:
        raise RuntimeError("Ray's Counter has no _record: codedance_verl.metrics.emit was written for Ray 2.60")
    record(amount, tags)


def _tell_again(recorder: weakref.ref[Recorder]) -> bool:
    """Sets all gauges again; True, which ends the thread, once metrics are off or the recorder is gone."""
    found = recorder()
    return found is None or not found._tell_gauges()


def for_trackers(tallies: Iterable[Tally]) -> dict[str, float]:
    """One number a series over all processes: the sum of a counter, the mean of gauges and histograms."""
    merged: dict[str, Sample] = {}
    for tally in tallies:
        for name, sample in tally.items():
            whole = merged.setdefault(name, Sample(sample.kind))
            whole.total += sample.total
            whole.count += sample.count
    return {
        name: sample.total if sample.kind is Kind.COUNTER else sample.total / sample.count
        for name, sample in merged.items()
    }


def finished_trajectories(numbers: Mapping[str, float]) -> float:
    """How many trajectories of training ended in a step, by its numbers `for_trackers`."""
    return sum(value for name, value in numbers.items() if name.startswith(f"{ROLLOUT_TRAJECTORIES.tracker}/train/"))


_recorder = Recorder()
add, set_gauge, observe = _recorder.add, _recorder.set_gauge, _recorder.observe
drain, switch = _recorder.drain, _recorder.switch
os.register_at_fork(after_in_child=_recorder.forget)
