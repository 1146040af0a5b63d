"""Ledger of calls, `ledger.jsonl`: for each question what a call is worth, P(right | call) - P(right | no call).

A line is one question as one model answered it, from one of three sources:

- `pair`: the greedy answers to its variants `forced_tools` and `no_tools`. Code was made to run, or kept from it, so
  the difference is the effect of the call. Forced answers in which no code ran say nothing of it, and are left out.
- `group`: the rollouts of training that were sampled for it in one step.
- `sampled`: the validation rollouts that were sampled for it.

In `group` and `sampled` the model chose whether to call: the difference also holds what made it choose. The estimate is
that of `codedance_verl.reward.call_value`; questions of the same kind, source, model and step are what it is shrunk to.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType

from codedance_verl.data.conditions import FORCED_TOOLS, NO_TOOLS, SAMPLED
from codedance_verl.evaluation.outcomes import Outcome, outcome_of
from codedance_verl.evaluation.training import steps_of
from codedance_verl.reward.call_value import CallCounts, call_value, count_calls, total
from codedance_verl.runtime.atomic import replacing
from codedance_verl.trajectories.schema import TrajectoryRecord
from codedance_verl.types import Verdict


@dataclass(frozen=True)
class LedgerLine:
    """Worth of a call on one question.

    Attributes:
        source: "pair", "group" or "sampled".
        seed: of the RL run; null for the model before RL.
        step: RL step of the model that answered; 0 before RL.
        record_id: the question.
        group: of training rollouts, as the viewer filters by it; empty for others.
        value, error, basis: of `call_value.CallValue`.
        called, called_right, not_called, not_called_right: rollouts behind it.
        forced_without_call: of source "pair", forced rollouts in which no code ran; in none of the other counts.
    """

    source: str
    seed: int | None
    step: int
    record_id: str
    kind: str
    difficulty: str | None
    group: str
    value: float
    error: float
    basis: str
    called: int
    called_right: int
    not_called: int
    not_called_right: int
    forced_without_call: int = 0


@dataclass(frozen=True)
class _Question:
    record_id: str
    kind: str
    difficulty: str | None
    group: str = ""


def evaluation_lines(outcomes: Sequence[Outcome], seed: int | None, step: int) -> Iterator[LedgerLine]:
    """Lines of a checkpoint's validation rollouts: `pair` where both variants were answered, and `sampled`."""
    judged = [outcome for outcome in outcomes if outcome.judged]
    yield from _pairs(judged, seed, step)
    sampled = [(_question(outcome), outcome) for outcome in judged if outcome.variant == SAMPLED]
    yield from _lines("sampled", seed, step, _counted(sampled))


def _pairs(judged: Sequence[Outcome], seed: int | None, step: int) -> Iterator[LedgerLine]:
    forced = [(_question(outcome), outcome) for outcome in judged if outcome.variant == FORCED_TOOLS]
    kept = [(_question(outcome), outcome) for outcome in judged if outcome.variant == NO_TOOLS and not outcome.executed]
    # A forced call may not have come about, or been refused: such a rollout is on neither side.
    uncalled = Counter(question for question, outcome in forced if not outcome.executed)
    counts = _counted([*(pair for pair in forced if pair[1].executed), *kept])
    whole = {question: own for question, own in counts.items() if own.called and own.not_called}
    yield from _lines("pair", seed, step, whole, uncalled)


def training_lines(log_folder: Path, seed: int) -> Iterator[LedgerLine]:
    """Lines of every group of `<run>/trajectories/train`; one step is held at a time.

    Raises:
        UserError: there is no log, or a line of it is broken.
    """
    for step, rollouts in steps_of(log_folder, _grouped):
        chosen = [(found[0], found[1]) for found in rollouts if found is not None and found[1].judged]
        yield from _lines("group", seed, step, _counted(chosen))


def write_ledger(lines: Iterable[LedgerLine], path: Path) -> int:
    """Writes the lines, one JSON object each, atomically; returns how many there are."""
    count = 0
    with replacing(path) as partial, partial.open("w", encoding="utf-8") as stream:
        for line in lines:
            # NaN is no JSON: it must fail here, not in a reader
            stream.write(json.dumps(asdict(line), ensure_ascii=False, allow_nan=False) + "\n")
            count += 1
    return count


def _grouped(record: TrajectoryRecord) -> tuple[_Question, Outcome] | None:
    """Question and outcome of a rollout; None of a branch, which calls because another rollout did."""
    if record.branch is not None:
        return None
    return _Question(record.record_id, record.kind, record.difficulty, record.group), outcome_of(record)


def _question(outcome: Outcome) -> _Question:
    return _Question(outcome.record_id, outcome.kind, outcome.difficulty)


def _counted(rollouts: Iterable[tuple[_Question, Outcome]]) -> dict[_Question, CallCounts]:
    by_question: dict[_Question, list[Outcome]] = defaultdict(list)
    for question, outcome in rollouts:
        by_question[question].append(outcome)
    return {
        question: count_calls(
            [outcome.executed > 0 for outcome in found], [outcome.verdict is Verdict.CORRECT for outcome in found]
        )
        for question, found in by_question.items()
    }


def _lines(
    source: str,
    seed: int | None,
    step: int,
    counts: dict[_Question, CallCounts],
    uncalled: Mapping[_Question, int] = MappingProxyType({}),
) -> Iterator[LedgerLine]:
    by_kind: dict[str, list[CallCounts]] = defaultdict(list)
    for question, own in counts.items():
        by_kind[question.kind].append(own)
    kinds = {kind: total(found) for kind, found in by_kind.items()}
    for question, own in sorted(counts.items(), key=lambda item: (item[0].record_id, item[0].group)):
        # without its own rollouts, which would count twice
        worth = call_value(own, kinds[question.kind] - own)
        yield LedgerLine(
            source=source,
            seed=seed,
            step=step,
            **asdict(question),
            value=round(worth.value, 6),
            error=round(worth.error, 6),
            basis=worth.basis,
            **asdict(own),
            forced_without_call=uncalled.get(question, 0),
        )
