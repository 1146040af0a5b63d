"""Catalogue of the metrics: name, kind, unit, labels and meaning. Code emits these (`emit.py`) and no others.

Names follow Prometheus: `codedance_<part>_<what>_<unit>`, counters end with `_total`. Ray puts `ray_` in front of them
and adds labels of its own (node address, worker). Labels take few values: the run, a split, a kind; never a record.

verl's trackers (console, TensorBoard, W&B, MLflow) get the same name with a slash behind each of its first two words,
`codedance/rollout/turns_total`, and the labels' values behind further slashes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

RUN = "run"
"""Label of every metric: name of the run's folder."""

EXPOSED_PREFIX = "ray_"
"""Prefix that Ray gives the names on its metrics port."""


class Kind(StrEnum):
    """Prometheus's type of a metric."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Unit(StrEnum):
    """Unit of a metric's values."""

    SECONDS = "seconds"
    TIMESTAMP = "seconds since 1970"
    BYTES = "bytes"
    RATIO = "ratio, 0 to 1"
    REWARD = "reward"
    TOKENS = "tokens"
    TOKENS_PER_SECOND = "tokens a second"
    STEPS = "steps"
    CALLS = "calls"
    SESSIONS = "sessions"
    CONTAINERS = "containers"
    TRAJECTORIES = "trajectories"
    TRAJECTORIES_PER_SECOND = "trajectories a second"
    TURNS = "turns"
    IMAGES = "images"
    GROUPS = "groups"
    ANSWERS = "answers"
    REQUESTS = "requests"
    CURRENCY = "the currency of the configured prices"
    WINDOWS = "windows"
    NUMBER = "plain number"


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: as in the code; `exposed` is the name that Prometheus gets.
        kind: a counter only grows, a gauge is the last value, a histogram counts values by `buckets`.
        unit: of its values.
        description: what it says, one sentence.
        labels: beside `run`.
        buckets: upper bounds, of a histogram alone. Ray adds up a histogram's values from its buckets: only counts and
            quantiles of it are right, its sum and so its mean are not.
    """

    name: str
    kind: Kind
    unit: Unit
    description: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def exposed(self) -> str:
        """Name on Ray's metrics port."""
        return EXPOSED_PREFIX + self.name

    @property
    def part(self) -> str:
        """Part of the system that emits it: the second word of its name."""
        return self.name.split("_")[1]

    @property
    def tracker(self) -> str:
        """Name in verl's trackers, without the labels' values."""
        return "/".join(self.name.split("_", 2))

    @property
    def series(self) -> tuple[str, ...]:
        """Names of its series in Prometheus."""
        # Ray's sum of a histogram is made of bucket bounds, so nothing should ask for it.
        if self.kind is not Kind.HISTOGRAM:
            return (self.exposed,)
        return (f"{self.exposed}_bucket", f"{self.exposed}_count")


def _counter(name: str, unit: Unit, description: str, *labels: str) -> Metric:
    return Metric(f"codedance_{name}_total", Kind.COUNTER, unit, description, labels)


def _gauge(name: str, unit: Unit, description: str, *labels: str) -> Metric:
    return Metric(f"codedance_{name}", Kind.GAUGE, unit, description, labels)


def _histogram(name: str, unit: Unit, description: str, buckets: tuple[float, ...], *labels: str) -> Metric:
    return Metric(f"codedance_{name}", Kind.HISTOGRAM, unit, description, labels, buckets)


# Bounds in seconds: from a trivial cell (about 5 ms) to the longest limits.
_WAITS = (0.005, 0.02, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
# Shares of groups of 8; the outermost bounds set groups apart that are all wrong or all right.
_SHARES = (0.001, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 0.999, 1.0)

# ---- sandbox: set by the actor of each node, every few seconds and after each call ----

SANDBOX_SESSIONS = _gauge("sandbox_sessions", Unit.SESSIONS, "Sessions with a place in an interpreter of the node.")
SANDBOX_CAPACITY = _gauge(
    "sandbox_capacity", Unit.SESSIONS, "Places of the serving interpreters, standby ones left out."
)
SANDBOX_WAITING = _gauge("sandbox_waiting", Unit.SESSIONS, "Callers that wait for a place in an interpreter.")
SANDBOX_INTERPRETERS = _gauge(
    "sandbox_interpreters", Unit.CONTAINERS, "Interpreters by role: serving, standby.", "role"
)
SANDBOX_MEMORY = _gauge("sandbox_memory_bytes", Unit.BYTES, "Memory of the interpreters without their sessions.")
SANDBOX_ORPHANS = _gauge("sandbox_orphan_containers", Unit.CONTAINERS, "Containers on the node whose owner is dead.")
SANDBOX_OPENED = _counter("sandbox_sessions_opened", Unit.SESSIONS, "Sessions that were opened.")
SANDBOX_REFUSED = _counter("sandbox_refusals", Unit.CALLS, "Refused callers: no place or slot became free in time.")
SANDBOX_LEASES = _counter("sandbox_leases_expired", Unit.SESSIONS, "Sessions that were closed as nobody used them.")
SANDBOX_RESTARTS = _counter("sandbox_restarts", Unit.CONTAINERS, "Interpreters that died and were replaced.")
SANDBOX_RECYCLED = _counter("sandbox_recycled", Unit.CONTAINERS, "Interpreters that were replaced for their age.")
SANDBOX_CALLS = _counter(
    "sandbox_calls", Unit.CALLS, "Cells by status: ok, no_output, error, timeout, killed, rejected.", "status"
)
SANDBOX_CALL_SECONDS = _histogram(
    "sandbox_call_seconds", Unit.SECONDS, "Run time of cells by status, waiting left out.", _WAITS, "status"
)
SANDBOX_QUEUE_SECONDS = _histogram("sandbox_queue_seconds", Unit.SECONDS, "Wait of cells for session or slot.", _WAITS)

# ---- rollout: set by the rollout workers when a group ends, for all that were drawn ----

ROLLOUTS_IN_FLIGHT = _gauge("rollouts_in_flight", Unit.TRAJECTORIES, "Trajectories in flight in a rollout worker.")
ROLLOUT_TRAJECTORIES = _counter(
    "rollout_trajectories",
    Unit.TRAJECTORIES,
    "Finished trajectories, with those that `sampling.keep` leaves out, by split (train, val) and by what ended them: "
    "answer, no_action, turn_limit, length, time_limit, infrastructure.",
    "split",
    "finish",
)
ROLLOUT_MASKED = _counter(
    "rollout_masked", Unit.TRAJECTORIES, "Trajectories that count neither in the loss nor in group statistics.", "split"
)
ROLLOUT_BRANCHES = _counter(
    "rollout_branches",
    Unit.TRAJECTORIES,
    "Trajectories that draw a call of another one of their group again (`sampling.redraw_calls`), by result: right, "
    "wrong, masked, and replay_differs, drawn from its start as the replayed cells came to another result.",
    "result",
)
ROLLOUT_REDRAWS = _counter(
    "rollout_redraws",
    Unit.GROUPS,
    "Training groups in which a call could be drawn again, by result: recovered, where a branch is right, "
    "not_recovered, and none, where no call was drawn again.",
    "result",
)
ROLLOUT_WITH_CALLS = _counter(
    "rollout_with_calls", Unit.TRAJECTORIES, "Trajectories with at least one call of the sandbox.", "split"
)
ROLLOUT_TURNS = _counter("rollout_turns", Unit.TURNS, "Turns that the model has taken.", "split")
ROLLOUT_TURNS_EACH = _histogram(
    "rollout_turns_per_trajectory", Unit.TURNS, "Turns of a trajectory.", (1, 2, 3, 4, 5, 6, 8, 10, 16, 32), "split"
)
ROLLOUT_TOKENS = _counter(
    "rollout_tokens",
    Unit.TOKENS,
    "Tokens behind the prompts by origin: sampled by the model, or given as feedback.",
    "split",
    "origin",
)
ROLLOUT_IMAGES = _counter("rollout_images", Unit.IMAGES, "Images that cells have returned.", "split")
ROLLOUT_SECONDS = _counter(
    "rollout_seconds",
    Unit.SECONDS,
    "Seconds of trajectories by activity: generate, execute, queue (for the sandbox), observe, grade. Trajectories run "
    "side by side, so these are shares and no wall time.",
    "split",
    "activity",
)
ROLLOUT_RETRIES = _counter("rollout_sandbox_retries", Unit.CALLS, "Retried refusals of the sandbox.", "split")
ROLLOUT_OPENED_EARLY = _counter(
    "rollout_sessions_opened_early",
    Unit.SESSIONS,
    "Sandbox sessions opened while the first call was being sampled (`environment.open_early`), by outcome: used, or "
    "in_vain, as the turn ran no call after all.",
    "split",
    "outcome",
)

ROLLOUT_UNWRITTEN = _counter("rollout_unwritten_groups", Unit.GROUPS, "Groups missing in the trajectory log.", "split")

# ---- reward: set by the rollout workers when a group is scored ----

REWARD_CORRECT = _counter("reward_correct", Unit.TRAJECTORIES, "Trajectories answered right, kept or not.", "split")
REWARD_UNGRADED = _counter("reward_ungraded", Unit.TRAJECTORIES, "Trajectories without verdict, kept or not.", "split")
REWARD_GRADING_ERRORS = _counter(
    "reward_grading_errors",
    Unit.TRAJECTORIES,
    "Of those without a verdict, trajectories whose grading ended with an error; the worker's log names the records.",
    "split",
)
REWARD_TERM_ERRORS = _counter(
    "reward_term_errors",
    Unit.TRAJECTORIES,
    "Trajectories to which the reward term of the user's own gave no value; the worker's log names the records.",
    "split",
)
REWARD_TERM = _gauge(
    "reward_term",
    Unit.REWARD,
    "Mean of a term over the rollouts of the last group that were kept, masked ones left out: accuracy, format, "
    "sequence, custom, score, turns (the sum over a trajectory's turns).",
    "split",
    "term",
)
REWARD_DIFFICULTY = _gauge("reward_difficulty", Unit.NUMBER, "Difficulty d(mu) of the last group as kept.", "split")
REWARD_GROUPS = _counter(
    "reward_groups",
    Unit.GROUPS,
    "Scored groups by the outcome of what was kept of them: all_right, mixed, all_wrong, masked.",
    "split",
    "outcome",
)
REWARD_ACCURACY = _histogram(
    "reward_group_accuracy_ratio", Unit.RATIO, "Share of right answers in what was kept of a group.", _SHARES, "split"
)

# ---- judge: set by its client in each rollout worker ----

JUDGE_ANSWERS = _counter(
    "judge_answers",
    Unit.ANSWERS,
    "Answers put to the judge, by where the verdict came from: cache, server, none (there is no verdict).",
    "source",
)
JUDGE_SECONDS = _histogram("judge_seconds", Unit.SECONDS, "Time that an answer waited for its verdict.", _WAITS)
JUDGE_REQUESTS = _counter("judge_requests", Unit.REQUESTS, "Requests to the judge's servers.")
JUDGE_FAILURES = _counter("judge_failures", Unit.REQUESTS, "Requests without a usable reply.")
JUDGE_TOKENS = _counter("judge_tokens", Unit.TOKENS, "Tokens of the judge as its servers count them.", "direction")
JUDGE_COST = _counter("judge_cost", Unit.CURRENCY, "Cost of the judge's tokens.")

# ---- monitor: set by the collapse monitors of each rollout worker when a window is full ----

MONITOR_RATE = _gauge(
    "monitor_rate_ratio",
    Unit.RATIO,
    "Rate of a sign of collapse over the last window: tool_rate, failed, invalid, idle, repeated, answer_in_code, "
    "cut_off.",
    "sign",
)
MONITOR_WINDOWS = _gauge(
    "monitor_windows_out_of_bounds", Unit.WINDOWS, "For how many windows in a row a sign is out of its bounds.", "sign"
)

# ---- training: set by the trainer when a step ends ----

TRAINING_STEP = _gauge("training_step", Unit.STEPS, "The last finished step.")
TRAINING_STEPS = _gauge("training_steps_planned", Unit.STEPS, "The step at which the run ends.")
TRAINING_STARTED = _gauge("training_step_started_timestamp_seconds", Unit.TIMESTAMP, "Start of the step or validation.")
TRAINING_VALIDATING = _gauge("training_validating", Unit.NUMBER, "1 while a validation runs, else 0.")
TRAINING_STEP_SECONDS = _gauge("training_step_seconds", Unit.SECONDS, "Wall time of the last step without validation.")
TRAINING_REMAINING = _gauge("training_remaining_seconds", Unit.SECONDS, "Expected wall time to the end of the run.")
TRAINING_PHASE = _gauge(
    "training_phase_seconds",
    Unit.SECONDS,
    "Wall time of the last step by phase: rollout, old_log_prob, ref_log_prob, values, advantage, update_actor, "
    "update_critic, weight_sync, checkpoint, validation.",
    "phase",
)
TRAINING_MASKED = _counter("training_masked_steps", Unit.STEPS, "Steps skipped, as no rollout of theirs counted.")
TRAINING_TOKENS = _gauge("training_tokens", Unit.TOKENS, "Tokens of the last step's batch, prompts included.")
TRAINING_TOKEN_RATE = _gauge(
    "training_tokens_per_second", Unit.TOKENS_PER_SECOND, "Tokens of the last step by its wall time and device."
)
TRAINING_TRAJECTORY_RATE = _gauge(
    "training_trajectories_per_second",
    Unit.TRAJECTORIES_PER_SECOND,
    "Trajectories that were rolled out in the last step, by its wall time.",
)
TRAINING_MFU = _gauge("training_flops_utilisation_ratio", Unit.RATIO, "Share of the devices' peak used by the update.")
TRAINING_STALENESS = _gauge(
    "training_staleness_steps",
    Unit.STEPS,
    "By how many steps the weights that sampled a trajectory were older than those it trains: mean, max.",
    "statistic",
)
TRAINING_LOSS = _gauge("training_policy_loss", Unit.NUMBER, "The policy's loss, averaged over the step's updates.")
TRAINING_GRADIENT = _gauge("training_gradient_norm", Unit.NUMBER, "Norm of the policy's gradient before clipping.")
TRAINING_ENTROPY = _gauge("training_entropy", Unit.NUMBER, "Entropy of the policy over sampled tokens, in nats.")
TRAINING_KL = _gauge("training_kl", Unit.NUMBER, "Divergence of the updated from the sampling policy, in nats.")
TRAINING_CLIPPED = _gauge("training_clipped_ratio", Unit.RATIO, "Share of tokens whose ratio was clipped.")
TRAINING_RATE = _gauge("training_learning_rate", Unit.NUMBER, "The policy's learning rate.")
TRAINING_SCORE = _gauge("training_score", Unit.REWARD, "Mean score of the trajectories that were trained on.")
TRAINING_RESPONSE = _gauge("training_response_tokens", Unit.TOKENS, "Mean length of a response.")
TRAINING_MISMATCH = _gauge(
    "training_rollout_probability_difference",
    Unit.NUMBER,
    "Mean difference between the probabilities vLLM sampled with and those that training computes.",
)

METRICS: tuple[Metric, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
"""All metrics, in the order above."""
