"""Dashboards of a run: cluster, sandbox, training health, reward; `grafana.py` turns them into Grafana's JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

from codedance_verl.metrics import catalogue as c
from codedance_verl.metrics.catalogue import METRICS, Kind, Metric, Unit

WINDOW = "$__rate_interval"
"""Grafana's variable for the span of a rate; a test of a query puts seconds in its place."""

_GRAFANA_UNITS = {Unit.SECONDS: "s", Unit.BYTES: "bytes", Unit.RATIO: "percentunit"}
"""Grafana's name of a unit; every other unit is shown as a bare number ("none")."""


@dataclass(frozen=True)
class Panel:
    """One graph: its title, (query, legend) pairs, Grafana's unit of the values, and its description."""

    title: str
    queries: tuple[tuple[str, str], ...]
    unit: str
    description: str
    stacked: bool = False


@dataclass(frozen=True)
class Dashboard:
    """A page of panels; `uid` is its stable name in Grafana's addresses."""

    uid: str
    title: str
    panels: tuple[Panel, ...]


def _of(metric: Metric, suffix: str = "", **labels: str) -> str:
    """Selector of the metric in the chosen runs."""
    chosen = ",".join(['run=~"$run"', *(f'{name}="{value}"' for name, value in labels.items())])
    return f"{metric.exposed}{suffix}{{{chosen}}}"


def _by(label: str) -> str:
    return f" by ({label})" if label else ""


def _rate(metric: Metric, by: str = "", **labels: str) -> str:
    return f"sum{_by(by)} (rate({_of(metric, **labels)}[{WINDOW}]))"


def _last_hour(metric: Metric, by: str = "", **labels: str) -> str:
    return f"sum{_by(by)} (increase({_of(metric, **labels)}[1h]))"


def _aggregate(function: str, metric: Metric, by: str = "", **labels: str) -> str:
    return f"{function}{_by(by)} ({_of(metric, **labels)})"


_mean, _sum, _max = (partial(_aggregate, function) for function in ("avg", "sum", "max"))


def _share(part: str, whole: str) -> str:
    return f"{part} / {whole}"


def _quantile(share: float, metric: Metric, by: str = "", **labels: str) -> str:
    # Buckets are added up before the quantile is taken: quantiles of single workers cannot be averaged.
    grouping = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({grouping}) (rate({_of(metric, '_bucket', **labels)}[{WINDOW}])))"


def _of_metric(
    title: str,
    metric: Metric,
    by: str = "run",
    how: Callable[..., str] = _mean,
    *,
    legend: str = "",
    description: str = "",
    stacked: bool = False,
    labels: Mapping[str, str] = MappingProxyType({}),
) -> Panel:
    """A panel of one metric in its own unit, with a line a value of the label `by`; explained by the catalogue."""
    unit = _GRAFANA_UNITS.get(metric.unit, "none")
    query = how(metric, by, **labels)
    return Panel(title, ((query, legend or f"{{{{{by}}}}}"),), unit, description or metric.description, stacked)


def _panel(
    title: str, queries: Mapping[str, str], description: str, unit: str = "none", *, stacked: bool = False
) -> Panel:
    """A panel of several queries, or of one that is computed; `queries` are by their legends."""
    return Panel(title, tuple((query, legend) for legend, query in queries.items()), unit, description, stacked)


def _quantiles(title: str, metric: Metric) -> Panel:
    queries = {"median": _quantile(0.5, metric), "99 %": _quantile(0.99, metric)}
    return _panel(title, queries, metric.description, _GRAFANA_UNITS.get(metric.unit, "none"))


_TRAIN = {"split": "train"}
_ROLLED_OUT = _rate(c.ROLLOUT_TRAJECTORIES, **_TRAIN)

CLUSTER = Dashboard(
    "codedance-cluster",
    "CodeDance: cluster",
    (
        _of_metric("Step", c.TRAINING_STEP),
        _of_metric("Time to the end", c.TRAINING_REMAINING),
        _panel(
            "Since the step began",
            {
                "{{run}}, under way": f"time() - {_max(c.TRAINING_STARTED, 'run')}",
                "{{run}}, last step": _mean(c.TRAINING_STEP_SECONDS, "run"),
            },
            "A step that lasts far longer than the one before it is stalled.",
            "s",
        ),
        _of_metric("Step by phase", c.TRAINING_PHASE, "phase", stacked=True),
        _panel(
            "Tokens a second",
            {
                "{{run}}, trained, by device": _mean(c.TRAINING_TOKEN_RATE, "run"),
                "rolled out: {{origin}}": _rate(c.ROLLOUT_TOKENS, "origin"),
            },
            "Trained: all tokens of a batch by the wall time of its step. Rolled out: as they are finished.",
        ),
        _of_metric("Trajectories a second", c.TRAINING_TRAJECTORY_RATE),
        _of_metric(
            "Weights to vLLM",
            c.TRAINING_PHASE,
            description="Wall time of bringing the new weights to the rollout engines.",
            labels={"phase": "weight_sync"},
        ),
        _of_metric("Staleness", c.TRAINING_STALENESS, "statistic"),
        _of_metric("Use of the devices", c.TRAINING_MFU),
        _of_metric("Tokens of a step", c.TRAINING_TOKENS),
        _of_metric("Trajectories in flight", c.ROLLOUTS_IN_FLIGHT, how=_sum),
    ),
)

SANDBOX = Dashboard(
    "codedance-sandbox",
    "CodeDance: sandbox",
    (
        _panel(
            "Sessions",
            {
                "open": _sum(c.SANDBOX_SESSIONS),
                "capacity": _sum(c.SANDBOX_CAPACITY),
                "waiting": _sum(c.SANDBOX_WAITING),
            },
            "Open sessions, what the interpreters can hold, and callers who wait for a place.",
        ),
        _of_metric("Calls a second by status", c.SANDBOX_CALLS, "status", _rate, stacked=True),
        _panel(
            "Share of calls that were killed",
            {"killed": _share(_rate(c.SANDBOX_CALLS, status="killed"), _rate(c.SANDBOX_CALLS))},
            "Cells whose session was lost. They mask their trajectory.",
            "percentunit",
        ),
        _panel(
            "Run time of calls",
            {
                "median, {{status}}": _quantile(0.5, c.SANDBOX_CALL_SECONDS, "status"),
                "99 % of all": _quantile(0.99, c.SANDBOX_CALL_SECONDS),
            },
            c.SANDBOX_CALL_SECONDS.description,
            "s",
        ),
        _quantiles("Waiting of calls", c.SANDBOX_QUEUE_SECONDS),
        _panel(
            "Sessions opened, refused, forgotten a second",
            {
                "opened": _rate(c.SANDBOX_OPENED),
                "refused": _rate(c.SANDBOX_REFUSED),
                "lease expired": _rate(c.SANDBOX_LEASES),
                "asked again by a rollout": _rate(c.ROLLOUT_RETRIES),
            },
            "Refused: no place or slot became free in time. Forgotten: the lease of an unused session ended.",
        ),
        _of_metric("Interpreters", c.SANDBOX_INTERPRETERS, "role", _sum, stacked=True),
        _panel(
            "Interpreters replaced in the last hour",
            {"died": _last_hour(c.SANDBOX_RESTARTS), "aged": _last_hour(c.SANDBOX_RECYCLED)},
            "Those that died, and those that had served their share of sessions or had grown.",
        ),
        _of_metric("Memory of the interpreters", c.SANDBOX_MEMORY, "", _sum, legend="all nodes"),
        _of_metric("Orphan containers", c.SANDBOX_ORPHANS, "", _sum, legend="all nodes"),
    ),
)

TRAINING = Dashboard(
    "codedance-training",
    "CodeDance: training health",
    (
        _of_metric("Loss", c.TRAINING_LOSS),
        _of_metric("Gradient", c.TRAINING_GRADIENT),
        _of_metric("Entropy", c.TRAINING_ENTROPY),
        _of_metric("Divergence from the sampled policy", c.TRAINING_KL),
        _of_metric("Clipped tokens", c.TRAINING_CLIPPED),
        _of_metric("vLLM and training disagree", c.TRAINING_MISMATCH),
        _of_metric("Learning rate", c.TRAINING_RATE),
        _of_metric("Signs of collapse", c.MONITOR_RATE, "sign"),
        _of_metric("Windows out of bounds", c.MONITOR_WINDOWS, "sign", _max),
        _of_metric(
            "What ended trajectories",
            c.ROLLOUT_TRAJECTORIES,
            "finish",
            _rate,
            description="Trajectories a second by what ended them.",
            stacked=True,
            labels=_TRAIN,
        ),
        _panel(
            "Share of trajectories",
            {
                "with calls": _share(_rate(c.ROLLOUT_WITH_CALLS, **_TRAIN), _ROLLED_OUT),
                "masked": _share(_rate(c.ROLLOUT_MASKED, **_TRAIN), _ROLLED_OUT),
            },
            "Those that call the sandbox, and those that count for nothing.",
            "percentunit",
        ),
        _of_metric(
            "Steps without a rollout that counts",
            c.TRAINING_MASKED,
            how=_last_hour,
            description="In the last hour. They are skipped; `monitors.max_masked_steps` in a row end the run.",
        ),
        _panel(
            "Where rollouts spend their time",
            {
                "{{activity}}": _share(
                    _rate(c.ROLLOUT_SECONDS, "activity", **_TRAIN),
                    # Many series divided by one: PromQL wants the label that only the left has named.
                    f"ignoring (activity) group_left () {_rate(c.ROLLOUT_SECONDS, **_TRAIN)}",
                )
            },
            c.ROLLOUT_SECONDS.description,
            "percentunit",
            stacked=True,
        ),
        _panel(
            "Turns of a trajectory",
            {
                "mean": _share(_rate(c.ROLLOUT_TURNS, **_TRAIN), _ROLLED_OUT),
                "95 %": _quantile(0.95, c.ROLLOUT_TURNS_EACH, **_TRAIN),
                "images": _share(_rate(c.ROLLOUT_IMAGES, **_TRAIN), _ROLLED_OUT),
            },
            "Turns of a trajectory, and images that its cells returned.",
        ),
        _of_metric(
            "Groups that could not be logged",
            c.ROLLOUT_UNWRITTEN,
            "split",
            _last_hour,
            description="In the last hour. The warnings of the rollout workers name the folder and the cause.",
        ),
        _of_metric("Length of a response", c.TRAINING_RESPONSE),
    ),
)

REWARD = Dashboard(
    "codedance-reward",
    "CodeDance: reward",
    (
        _of_metric("Score of what was trained on", c.TRAINING_SCORE),
        _of_metric("Terms", c.REWARD_TERM, "term", labels=_TRAIN),
        _panel(
            "Right answers",
            {"{{split}}": _share(_rate(c.REWARD_CORRECT, "split"), _rate(c.ROLLOUT_TRAJECTORIES, "split"))},
            "Share of trajectories with a right answer.",
            "percentunit",
        ),
        _of_metric(
            "Groups by outcome",
            c.REWARD_GROUPS,
            "outcome",
            _rate,
            description="Groups a second; only mixed ones teach anything by their accuracy.",
            stacked=True,
            labels=_TRAIN,
        ),
        _of_metric("Difficulty", c.REWARD_DIFFICULTY, "split"),
        _panel(
            "Accuracy of groups",
            {
                name: _quantile(share, c.REWARD_ACCURACY, **_TRAIN)
                for share, name in ((0.25, "lower quarter"), (0.5, "median"), (0.75, "upper quarter"))
            },
            c.REWARD_ACCURACY.description,
            "percentunit",
        ),
        _panel(
            "Answers without a verdict",
            {
                "ungraded": _share(_rate(c.REWARD_UNGRADED, **_TRAIN), _ROLLED_OUT),
                "by an error in grading": _share(_rate(c.REWARD_GRADING_ERRORS, **_TRAIN), _ROLLED_OUT),
                "without their own reward term": _share(_rate(c.REWARD_TERM_ERRORS, **_TRAIN), _ROLLED_OUT),
            },
            "Share of the trajectories of training whose answer got no verdict, of those whose grading failed, and of "
            "those to which the user's own reward term gave no value.",
            "percentunit",
        ),
        _of_metric("Answers to the judge", c.JUDGE_ANSWERS, "source", _rate, stacked=True),
        _quantiles("Waiting for the judge", c.JUDGE_SECONDS),
        _panel(
            "Requests to the judge a second",
            {"sent": _rate(c.JUDGE_REQUESTS), "failed": _rate(c.JUDGE_FAILURES)},
            "Requests, and those without a usable reply.",
        ),
        _of_metric("Tokens of the judge a second", c.JUDGE_TOKENS, "direction", _rate),
        _of_metric("Cost of the judge", c.JUDGE_COST, how=_sum),
    ),
)

_PAGES = (CLUSTER, SANDBOX, TRAINING, REWARD)
_PAGE_OF_PART = {"sandbox": SANDBOX.uid, "reward": REWARD.uid, "judge": REWARD.uid}
"""Dashboard of the metrics of a part that no panel above names; those of every other part go to the training's."""


def default_panel(metric: Metric) -> Panel:
    """Returns a panel by the metric's kind: quantiles of a histogram, growth of a counter, mean of a gauge."""
    if metric.kind is Kind.HISTOGRAM:
        return _quantiles(metric.name, metric)
    by = metric.labels[0] if metric.labels else "run"
    return _of_metric(metric.name, metric, by, _rate if metric.kind is Kind.COUNTER else _mean)


def with_default_panels(pages: Iterable[Dashboard], metrics: Iterable[Metric]) -> tuple[Dashboard, ...]:
    """Returns the pages with a default panel for each metric that no panel names, so that a new one needs none."""
    pages = tuple(pages)
    queries = [query for page in pages for panel in page.panels for query, _ in panel.queries]
    # The brace ends the name: one metric's name may begin another's.
    rest = [
        metric for metric in metrics if not any(series + "{" in query for series in metric.series for query in queries)
    ]
    more = {page.uid: tuple(default_panel(metric) for metric in rest if _page_of(metric) == page.uid) for page in pages}
    return tuple(replace(page, panels=page.panels + more[page.uid]) for page in pages)


def _page_of(metric: Metric) -> str:
    return _PAGE_OF_PART.get(metric.part, TRAINING.uid)


# A constant of the run, and a condition of an alert: neither is worth a line over time.
_WITHOUT_PANEL = (c.TRAINING_STEPS, c.TRAINING_VALIDATING)
DASHBOARDS = with_default_panels(_PAGES, [metric for metric in METRICS if metric not in _WITHOUT_PANEL])


def runnable(query: str, window: str = "1m") -> str:
    """Returns the query for Prometheus itself: all runs, rates over `window`."""
    return query.replace(WINDOW, window).replace('run=~"$run"', 'run=~".*"')
