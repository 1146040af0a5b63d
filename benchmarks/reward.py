"""Cost of reward and advantage of a batch: `python -m benchmarks.reward`, a few seconds on one core.

Rollouts of 6 turns, 5 of them with code of their own, are scored in groups, encoded on their tokens, decoded, and given
advantages, as in a training step. Grading and everything that verl adds is left out. Prints CPU seconds by part and
writes them as JSON (`--output`).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from codedance_verl.formats import get_format, render_answer, render_think
from codedance_verl.reward.advantage import token_advantages
from codedance_verl.reward.config import RewardConfig
from codedance_verl.reward.encoding import encode_rewards
from codedance_verl.reward.presets import PRESETS
from codedance_verl.reward.terms import score_group
from codedance_verl.reward.tool_calls import does_something
from codedance_verl.types import (
    Execution,
    ExecutionStatus,
    FinishReason,
    Grade,
    RewardTerms,
    Trajectory,
    Turn,
    Verdict,
)

BAR_S = 1.0
"""CPU seconds that 2,048 rollouts of 6 turns may take."""

CODE = """# step {number}: crop the part that matters and count
import numpy as np
box = ({left}, 10, {left} + 64, 74)
part = input_image.crop(box).convert("RGB")
pixels = np.asarray(part, dtype=float)
bright = pixels.mean(axis=2) > {threshold}
rows = [int(row.sum()) for row in bright]
for index, row in enumerate(rows):
    if row > 3:
        print(index, row)
count = sum(row > 3 for row in rows)
print("count", count)
part
"""
STATUSES = (ExecutionStatus.OK,) * 8 + (ExecutionStatus.ERROR, ExecutionStatus.TIMEOUT)

Result = TypeVar("Result")


@dataclass(frozen=True)
class Cost:
    """CPU seconds of one batch by part, least of several runs; `total_s` is of the fastest run."""

    preset: str
    rollouts: int
    turns: int
    tokens: int
    terms_s: float
    encode_s: float
    advantage_s: float
    total_s: float
    runs: int


@dataclass(frozen=True)
class Batch:
    groups: list[tuple[list[Trajectory], list[Grade]]]
    tokens: int


def make_batch(rollouts: int, turns: int, tokens: int, group_size: int = 8, seed: int = 0) -> Batch:
    """Groups of rollouts whose code differs in every cell, so that nothing is cheap for being the same."""
    chance, groups = random.Random(seed), []
    for _ in range(rollouts // group_size):
        members = [_rollout(chance, turns, tokens) for _ in range(group_size)]
        grades = [Grade(chance.choice((Verdict.CORRECT, Verdict.WRONG)), "number") for _ in members]
        groups.append((members, grades))
    return Batch(groups, tokens)


def _rollout(chance: random.Random, turns: int, tokens: int) -> Trajectory:
    written, spans, made = get_format("code"), _spans(chance, turns, tokens), []
    for number, (start, end) in enumerate(spans[:-1]):
        code = CODE.format(number=number, left=chance.randrange(10**6), threshold=chance.random())
        text = render_think("The part on the left may hold more of them. " * 6) + written.render_call(code)
        made.append(Turn(text, start, end, code, Execution(chance.choice(STATUSES), "count 3\n")))
    made.append(Turn(render_think("So it is three.") + render_answer("3"), *spans[-1]))
    return Trajectory("r", "bench", "How many?", "3", tuple(made), FinishReason.ANSWER, "3")


def _spans(chance: random.Random, turns: int, tokens: int) -> list[tuple[int, int]]:
    """Ragged spans with feedback between them, within `tokens`."""
    most, spans, start = tokens // (2 * turns), [], 0
    for _ in range(turns):
        end = start + chance.randrange(most // 2, most)
        spans.append((start, end))
        start = end + chance.randrange(1, most)
    return spans


def measure(batch: Batch, config: RewardConfig) -> tuple[float, float, float]:
    """CPU seconds of terms, encoding and advantages."""
    does_something.cache_clear()
    terms, terms_s = _timed(lambda: [score_group(members, grades, config) for members, grades in batch.groups])
    flat = [item for group in terms for item in group]
    members = [member for group, _ in batch.groups for member in group]
    (rewards, mask), encode_s = _timed(lambda: _encoded(members, flat, batch.tokens))
    names = [number for number, (group, _) in enumerate(batch.groups) for _ in group]
    _, advantage_s = _timed(lambda: token_advantages(rewards, mask, names, config))
    return terms_s, encode_s, advantage_s


def _encoded(
    members: Sequence[Trajectory], terms: Sequence[RewardTerms], tokens: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int8]]:
    rewards, mask = np.zeros((len(members), tokens), np.float32), np.zeros((len(members), tokens), np.int8)
    for row, (member, item) in enumerate(zip(members, terms, strict=True)):
        spans = [(turn.token_start, turn.token_end) for turn in member.turns]
        rewards[row] = encode_rewards(spans, item, tokens)
        for start, end in spans:
            mask[row, start:end] = not item.masked
    return rewards, mask


def _timed(work: Callable[[], Result]) -> tuple[Result, float]:
    started = time.process_time()
    result = work()
    return result, time.process_time() - started


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollouts", type=int, default=2_048, help="a multiple of 8")
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=4_096, help="response tokens of a row")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--presets", default="robust,paper,gtpo", help="separated by commas")
    parser.add_argument("--output", type=Path, default=Path("outputs/bench/reward.json"))
    options = parser.parse_args(arguments)
    batch = make_batch(options.rollouts, options.turns, options.tokens)
    costs = []
    for name in options.presets.split(","):
        runs = [measure(batch, PRESETS[name]) for _ in range(options.runs)]
        terms_s, encode_s, advantage_s = (min(run[part] for run in runs) for part in range(3))
        costs.append(
            Cost(
                preset=name,
                rollouts=options.rollouts,
                turns=options.turns,
                tokens=options.tokens,
                terms_s=terms_s,
                encode_s=encode_s,
                advantage_s=advantage_s,
                total_s=min(map(sum, runs)),
                runs=options.runs,
            )
        )
        print(_line(costs[-1]))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    found = {"bar_s": BAR_S, "cores": os.cpu_count(), "costs": [asdict(cost) for cost in costs]}
    options.output.write_text(json.dumps(found, indent=2) + "\n")


def _line(cost: Cost) -> str:
    return (
        f"{cost.preset:<16} {cost.rollouts} rollouts of {cost.turns} turns, {cost.tokens} tokens: "
        f"terms {cost.terms_s:.2f} s, encoding {cost.encode_s:.2f} s, advantages {cost.advantage_s:.2f} s, "
        f"together {cost.total_s:.2f} s of CPU (bar {BAR_S:.0f} s)"
    )


if __name__ == "__main__":
    main()
