"""Types of the parts of `report.json` that say what RL changed: greedy gain, controls, effect of tools, discovery."""

from __future__ import annotations

from dataclasses import dataclass

from codedance_verl.evaluation.figures import Figure, Groups


@dataclass(frozen=True)
class KindRoles:
    """Kinds of questions that criteria of their own are held against; empty where a test set has none such.

    Attributes:
        undemonstrated: hard kinds whose demonstrations never show a call.
        returned_image: kinds that only an image which code returns can answer.
        look_alikes: pairs of kinds asked in the same words; the first needs code, the second does not.
    """

    undemonstrated: tuple[str, ...] = ()
    returned_image: tuple[str, ...] = ()
    look_alikes: tuple[tuple[str, str], ...] = ()


NO_ROLES = KindRoles()


@dataclass(frozen=True)
class GreedyGain:
    """Greedy accuracy, RL minus SFT, question by question; `per_seed` holds the gain of each seed on the
    same questions.

    Attributes:
        hard: over the hard questions.
        kinds: over the questions of each kind.
    """

    hard: Figure
    kinds: dict[str, Figure]


@dataclass(frozen=True)
class Rates:
    """Accuracy, and share of rollouts in which code ran, on one set of questions."""

    accuracy: Figure
    tool_rate: Figure


@dataclass(frozen=True)
class ControlFigures(Rates):
    """Rates under a control, and `as_is` those of the same questions without it.

    Questions are those that every run of the model has a verdict on both ways.
    """

    as_is: Rates


@dataclass(frozen=True)
class GroupControls:
    """Controls of one model on one group of questions; null for a control that the test set lacks there.

    Attributes:
        chance: accuracy of a guess: one over the number of different answers that a kind has in the test file, averaged
            over the questions. Null where answers of a kind hardly repeat, so that they are no closed set.
        as_is: all greedy rollouts.
        grey: greedy; every image that code returns is grey.
        no_tools: greedy; no call is possible.
        forced_tools: greedy; a call comes before any answer.
        blank: sampled, as is its `as_is`; the question's image is replaced by a plain one.
    """

    chance: float | None
    as_is: Rates
    grey: ControlFigures | None
    no_tools: ControlFigures | None
    forced_tools: ControlFigures | None
    blank: ControlFigures | None


@dataclass(frozen=True)
class Controls:
    """The controls before and after RL, the latter as means over the seeds."""

    sft: Groups[GroupControls]
    rl: Groups[GroupControls]


@dataclass(frozen=True)
class EffectChange:
    """Changes since the start of RL on the same questions: drift + gain - harm = accuracy.

    Attributes:
        accuracy: of the greedy accuracy with tools.
        drift: of the greedy accuracy without tools.
        gain, harm: of the terms of `GroupEffect`.
    """

    accuracy: Figure
    drift: Figure
    gain: Figure
    harm: Figure


@dataclass(frozen=True)
class GroupEffect:
    """Effect of tools on greedy answers at one checkpoint: accuracy = accuracy_without + gain - harm.

    Attributes:
        questions: those with a verdict with and without tools, here and at the start.
        left_out: those that were asked both ways and lack a verdict in one of the four.
        accuracy, accuracy_without: with tools and without.
        gain: share of questions that are wrong without tools and right with them.
        harm: share of questions that are right without tools and wrong with them.
        gain_by_call, harm_by_call: shares of the same kind where code ran; the rest is due to the mere offer of tools.
        change: null at the start.
    """

    questions: int
    left_out: int
    accuracy: Figure
    accuracy_without: Figure
    gain: Figure
    harm: Figure
    gain_by_call: float | None
    harm_by_call: float | None
    change: EffectChange | None


@dataclass(frozen=True)
class Checkpoint:
    """Effect of tools at a validated step of a seed; `seed` is null for the start of RL, which all seeds share."""

    seed: int | None
    step: int
    groups: Groups[GroupEffect]


@dataclass(frozen=True)
class TrajectoryName:
    """A training rollout in the log: `codedance view RUN` finds it by step, record and sample."""

    step: int
    record_id: str
    sample: int
    group: str


@dataclass(frozen=True)
class FirstSeen:
    """First step that shows a behaviour, and the first rollouts of it that do, five at most."""

    step: int
    trajectories: tuple[TrajectoryName, ...]


@dataclass(frozen=True)
class DiscoveryPoint:
    """Training rollouts of one kind in one step.

    Attributes:
        rollouts: all but infrastructure faults.
        called: those in which code ran.
        right: those of `called` that gave a right answer.
        share: called / rollouts.
        share_right: right / rollouts.
    """

    step: int
    rollouts: int
    called: int
    right: int
    share: float
    share_right: float


@dataclass(frozen=True)
class SeedDiscovery:
    """Use of code on one kind in the training of one seed; null where no rollout of the log shows it."""

    seed: int
    first_call: FirstSeen | None
    first_right: FirstSeen | None
    points: tuple[DiscoveryPoint, ...]


@dataclass(frozen=True)
class KindDiscovery:
    """Discovery of code on a kind whose demonstrations show none, seed by seed."""

    seeds: tuple[SeedDiscovery, ...]


@dataclass(frozen=True)
class PairFigures:
    """Sampled rollouts of two kinds that are asked in the same words.

    Attributes:
        called: share of rollouts on the kind that needs code in which code ran.
        not_called: share of rollouts on the other kind in which none ran.
        pairs_right: share of all pairs, a rollout of either kind, in which code ran in the first and not in the second.
            Its interval resamples the questions of both kinds; where a rate is alike on all of its questions, it
            multiplies the ends of the other two, which is wider than 95 % asks for.
        balanced: mean of `called` and `not_called`.
    """

    called: Figure
    not_called: Figure
    pairs_right: Figure
    balanced: float | None


@dataclass(frozen=True)
class LookAlikes:
    """Two kinds asked in the same words, of which only `needs_code` needs code."""

    needs_code: str
    needs_none: str
    sft: PairFigures
    rl: PairFigures
