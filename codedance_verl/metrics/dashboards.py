"""The dashboards: cluster, sandbox, training health, reward; `grafana.py` turns them into Grafana's JSON."""

from __future__ import annotations

from dataclasses import dataclass

from codedance_verl.metrics import catalogue as c
from codedance_verl.metrics.catalogue import Metric

WINDOW = "$__rate_interval"
"""Grafana's variable for the span of a rate; a test of a query puts seconds in its place."""


@dataclass(frozen=True)
class Panel:
    """One picture: its title, (query, legend) pairs, Grafana's unit of the values, and what it shows."""

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


def _of(metric: Metric, **labels: str) -> str:
    """The metric of the chosen runs."""
    chosen = ",".join(['run=~"$run"', *(f'{name}="{value}"' for name, value in labels.items())])
    return f"{metric.exposed}{{{chosen}}}"


def _rate(metric: Metric, by: str = "", **labels: str) -> str:
    grouping = f" by ({by})" if by else ""
    return f"sum{grouping} (rate({_of(metric, **labels)}[{WINDOW}]))"


def _share(part: str, whole: str) -> str:
    return f"{part} / {whole}"


def _quantile(share: float, metric: Metric, by: str = "", **labels: str) -> str:
    bucket = _of(metric, **labels).replace(metric.exposed, f"{metric.exposed}_bucket", 1)
    grouping = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({grouping}) (rate({bucket}[{WINDOW}])))"


def _mean(metric: Metric, by: str = "", **labels: str) -> str:
    grouping = f" by ({by})" if by else ""
    return f"avg{grouping} ({_of(metric, **labels)})"


def _sum(metric: Metric, by: str = "", **labels: str) -> str:
    grouping = f" by ({by})" if by else ""
    return f"sum{grouping} ({_of(metric, **labels)})"


def _panel(title: str, query: str, legend: str, unit: str, description: str, stacked: bool = False) -> Panel:
    return Panel(title, ((query, legend),), unit, description, stacked)


_TRAIN = {"split": "train"}
_ROLLED_OUT = _rate(c.ROLLOUT_TRAJECTORIES, **_TRAIN)

CLUSTER = Dashboard(
    "codedance-cluster",
    "CodeDance: cluster",
    (
        _panel("Step", _mean(c.TRAINING_STEP, "run"), "{{run}}", "none", c.TRAINING_STEP.description),
        _panel("Time to the end", _mean(c.TRAINING_REMAINING, "run"), "{{run}}", "s", c.TRAINING_REMAINING.description),
        Panel(
            "Since the step began",
            (
                (f"time() - max by (run) ({_of(c.TRAINING_STARTED)})", "{{run}}, under way"),
                (_mean(c.TRAINING_STEP_SECONDS, "run"), "{{run}}, last step"),
            ),
            "s",
            "A step that lasts far longer than the one before it is stalled.",
        ),
        _panel("Step by phase", _mean(c.TRAINING_PHASE, "phase"), "{{phase}}", "s", c.TRAINING_PHASE.description, True),
        Panel(
            "Tokens a second",
            (
                (_mean(c.TRAINING_TOKEN_RATE, "run"), "{{run}}, trained, by device"),
                (_rate(c.ROLLOUT_TOKENS, "origin"), "rolled out: {{origin}}"),
            ),
            "none",
            "Trained: all tokens of a batch by the wall time of its step. Rolled out: as they are finished.",
        ),
        _panel(
            "Trajectories a second",
            _mean(c.TRAINING_TRAJECTORY_RATE, "run"),
            "{{run}}",
            "none",
            c.TRAINING_TRAJECTORY_RATE.description,
        ),
        _panel(
            "Weights to vLLM",
            _mean(c.TRAINING_PHASE, "run", phase="weight_sync"),
            "{{run}}",
            "s",
            "Wall time of bringing the new weights to the rollout engines.",
        ),
        _panel(
            "Staleness",
            _mean(c.TRAINING_STALENESS, "statistic"),
            "{{statistic}}",
            "none",
            c.TRAINING_STALENESS.description,
        ),
        _panel(
            "Use of the devices", _mean(c.TRAINING_MFU, "run"), "{{run}}", "percentunit", c.TRAINING_MFU.description
        ),
        _panel("Tokens of a step", _mean(c.TRAINING_TOKENS, "run"), "{{run}}", "none", c.TRAINING_TOKENS.description),
        _panel(
            "Trajectories under way",
            _sum(c.ROLLOUT_UNDER_WAY, "run"),
            "{{run}}",
            "none",
            c.ROLLOUT_UNDER_WAY.description,
        ),
    ),
)

SANDBOX = Dashboard(
    "codedance-sandbox",
    "CodeDance: sandbox",
    (
        Panel(
            "Sessions",
            (
                (_sum(c.SANDBOX_SESSIONS), "open"),
                (_sum(c.SANDBOX_CAPACITY), "capacity"),
                (_sum(c.SANDBOX_WAITING), "waiting"),
            ),
            "none",
            "Open sessions, what the interpreters can hold, and callers who wait for a place.",
        ),
        _panel(
            "Calls a second by status",
            _rate(c.SANDBOX_CALLS, "status"),
            "{{status}}",
            "none",
            c.SANDBOX_CALLS.description,
            True,
        ),
        _panel(
            "Share of calls that were killed",
            _share(_rate(c.SANDBOX_CALLS, status="killed"), _rate(c.SANDBOX_CALLS)),
            "killed",
            "percentunit",
            "Cells whose session was lost. They mask their trajectory.",
        ),
        Panel(
            "Run time of calls",
            (
                (_quantile(0.5, c.SANDBOX_CALL_SECONDS, "status"), "median, {{status}}"),
                (_quantile(0.99, c.SANDBOX_CALL_SECONDS), "99 % of all"),
            ),
            "s",
            c.SANDBOX_CALL_SECONDS.description,
        ),
        Panel(
            "Waiting of calls",
            ((_quantile(0.5, c.SANDBOX_QUEUE_SECONDS), "median"), (_quantile(0.99, c.SANDBOX_QUEUE_SECONDS), "99 %")),
            "s",
            c.SANDBOX_QUEUE_SECONDS.description,
        ),
        Panel(
            "Sessions opened, refused, forgotten a second",
            (
                (_rate(c.SANDBOX_OPENED), "opened"),
                (_rate(c.SANDBOX_REFUSED), "refused"),
                (_rate(c.SANDBOX_LEASES), "lease expired"),
                (_rate(c.ROLLOUT_RETRIES), "asked again by a rollout"),
            ),
            "none",
            "Refused: no place or slot became free in time. Forgotten: the lease of an unused session ended.",
        ),
        _panel(
            "Interpreters",
            _sum(c.SANDBOX_INTERPRETERS, "role"),
            "{{role}}",
            "none",
            c.SANDBOX_INTERPRETERS.description,
            True,
        ),
        Panel(
            "Interpreters replaced in the last hour",
            (
                (f"sum (increase({_of(c.SANDBOX_RESTARTS)}[1h]))", "died"),
                (f"sum (increase({_of(c.SANDBOX_RECYCLED)}[1h]))", "aged"),
            ),
            "none",
            "Those that died, and those that had served their share of sessions or had grown.",
        ),
        _panel(
            "Memory of the interpreters", _sum(c.SANDBOX_MEMORY), "all nodes", "bytes", c.SANDBOX_MEMORY.description
        ),
        _panel("Orphan containers", _sum(c.SANDBOX_ORPHANS), "all nodes", "none", c.SANDBOX_ORPHANS.description),
    ),
)

TRAINING = Dashboard(
    "codedance-training",
    "CodeDance: training health",
    (
        _panel("Loss", _mean(c.TRAINING_LOSS, "run"), "{{run}}", "none", c.TRAINING_LOSS.description),
        _panel("Gradient", _mean(c.TRAINING_GRADIENT, "run"), "{{run}}", "none", c.TRAINING_GRADIENT.description),
        _panel("Entropy", _mean(c.TRAINING_ENTROPY, "run"), "{{run}}", "none", c.TRAINING_ENTROPY.description),
        _panel(
            "Divergence from the sampled policy",
            _mean(c.TRAINING_KL, "run"),
            "{{run}}",
            "none",
            c.TRAINING_KL.description,
        ),
        _panel(
            "Clipped tokens", _mean(c.TRAINING_CLIPPED, "run"), "{{run}}", "percentunit", c.TRAINING_CLIPPED.description
        ),
        _panel(
            "vLLM and training disagree",
            _mean(c.TRAINING_MISMATCH, "run"),
            "{{run}}",
            "none",
            c.TRAINING_MISMATCH.description,
        ),
        _panel("Learning rate", _mean(c.TRAINING_RATE, "run"), "{{run}}", "none", c.TRAINING_RATE.description),
        _panel(
            "Signs of collapse", _mean(c.MONITOR_RATE, "sign"), "{{sign}}", "percentunit", c.MONITOR_RATE.description
        ),
        _panel(
            "Windows out of bounds",
            f"max by (sign) ({_of(c.MONITOR_WINDOWS)})",
            "{{sign}}",
            "none",
            c.MONITOR_WINDOWS.description,
        ),
        _panel(
            "What ended trajectories",
            _rate(c.ROLLOUT_TRAJECTORIES, "finish", **_TRAIN),
            "{{finish}}",
            "none",
            "Trajectories a second by what ended them.",
            True,
        ),
        Panel(
            "Share of trajectories",
            (
                (_share(_rate(c.ROLLOUT_WITH_CALLS, **_TRAIN), _ROLLED_OUT), "with calls"),
                (_share(_rate(c.ROLLOUT_MASKED, **_TRAIN), _ROLLED_OUT), "masked"),
            ),
            "percentunit",
            "Those that call the sandbox, and those that count for nothing.",
        ),
        _panel(
            "Steps without a rollout that counts",
            f"sum by (run) (increase({_of(c.TRAINING_MASKED)}[1h]))",
            "{{run}}",
            "none",
            "In the last hour. They are skipped; `monitors.max_masked_steps` in a row end the run.",
        ),
        _panel(
            "Where rollouts spend their time",
            _share(
                _rate(c.ROLLOUT_SECONDS, "activity", **_TRAIN),
                f"ignoring (activity) group_left () {_rate(c.ROLLOUT_SECONDS, **_TRAIN)}",
            ),
            "{{activity}}",
            "percentunit",
            c.ROLLOUT_SECONDS.description,
            True,
        ),
        Panel(
            "Turns of a trajectory",
            (
                (_share(_rate(c.ROLLOUT_TURNS, **_TRAIN), _ROLLED_OUT), "mean"),
                (_quantile(0.95, c.ROLLOUT_TURNS_EACH, **_TRAIN), "95 %"),
                (_share(_rate(c.ROLLOUT_IMAGES, **_TRAIN), _ROLLED_OUT), "images"),
            ),
            "none",
            "Turns of a trajectory, and images that its cells returned.",
        ),
        _panel(
            "Groups that could not be logged",
            f"sum by (split) (increase({_of(c.ROLLOUT_UNWRITTEN)}[1h]))",
            "{{split}}",
            "none",
            "In the last hour. The warnings of the rollout workers name the folder and the cause.",
        ),
        _panel(
            "Length of a response",
            _mean(c.TRAINING_RESPONSE, "run"),
            "{{run}}",
            "none",
            c.TRAINING_RESPONSE.description,
        ),
    ),
)

REWARD = Dashboard(
    "codedance-reward",
    "CodeDance: reward",
    (
        _panel(
            "Score of what was trained on",
            _mean(c.TRAINING_SCORE, "run"),
            "{{run}}",
            "none",
            c.TRAINING_SCORE.description,
        ),
        _panel("Terms", _mean(c.REWARD_TERM, "term", **_TRAIN), "{{term}}", "none", c.REWARD_TERM.description),
        _panel(
            "Right answers",
            _share(_rate(c.REWARD_CORRECT, "split"), _rate(c.ROLLOUT_TRAJECTORIES, "split")),
            "{{split}}",
            "percentunit",
            "Share of trajectories with a right answer.",
        ),
        _panel(
            "Groups by outcome",
            _rate(c.REWARD_GROUPS, "outcome", **_TRAIN),
            "{{outcome}}",
            "none",
            "Groups a second; only mixed ones teach anything by their accuracy.",
            True,
        ),
        _panel("Difficulty", _mean(c.REWARD_DIFFICULTY, "split"), "{{split}}", "none", c.REWARD_DIFFICULTY.description),
        Panel(
            "Accuracy of groups",
            tuple(
                (_quantile(share, c.REWARD_ACCURACY, **_TRAIN), name)
                for share, name in ((0.25, "lower quarter"), (0.5, "median"), (0.75, "upper quarter"))
            ),
            "percentunit",
            c.REWARD_ACCURACY.description,
        ),
        Panel(
            "Answers without a verdict",
            (
                (_share(_rate(c.REWARD_UNGRADED, **_TRAIN), _ROLLED_OUT), "ungraded"),
                (_share(_rate(c.REWARD_GRADING_ERRORS, **_TRAIN), _ROLLED_OUT), "by an error in grading"),
                (_share(_rate(c.REWARD_TERM_ERRORS, **_TRAIN), _ROLLED_OUT), "without their own reward term"),
            ),
            "percentunit",
            "Share of the trajectories of training whose answer got no verdict, of those whose grading failed, and of "
            "those to which the user's own reward term gave no value.",
        ),
        _panel(
            "Answers to the judge",
            _rate(c.JUDGE_ANSWERS, "source"),
            "{{source}}",
            "none",
            c.JUDGE_ANSWERS.description,
            True,
        ),
        Panel(
            "Waiting for the judge",
            ((_quantile(0.5, c.JUDGE_SECONDS), "median"), (_quantile(0.99, c.JUDGE_SECONDS), "99 %")),
            "s",
            c.JUDGE_SECONDS.description,
        ),
        Panel(
            "Requests to the judge a second",
            ((_rate(c.JUDGE_REQUESTS), "sent"), (_rate(c.JUDGE_FAILURES), "failed")),
            "none",
            "Requests, and those without a usable reply.",
        ),
        _panel(
            "Tokens of the judge a second",
            _rate(c.JUDGE_TOKENS, "direction"),
            "{{direction}}",
            "none",
            c.JUDGE_TOKENS.description,
        ),
        _panel("Cost of the judge", _sum(c.JUDGE_COST, "run"), "{{run}}", "none", c.JUDGE_COST.description),
    ),
)

DASHBOARDS = (CLUSTER, SANDBOX, TRAINING, REWARD)


def runnable(query: str, window: str = "1m") -> str:
    """The query for Prometheus itself: all runs, rates over `window`."""
    return query.replace(WINDOW, window).replace('run=~"$run"', 'run=~".*"')
