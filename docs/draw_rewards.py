"""Draws the images of docs/reward.md: `python docs/draw_rewards.py -o docs/pictures`.

`difficulty.png`: both readings of d(mu). `tool_terms.png`: what calls earn and cost under each preset, over the
accuracy of the group. `turns.png`: the advantage of the turns of one rollout, batch-wide z-score beside fixed scale.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from codedance_verl.reward.advantage import token_advantages
from codedance_verl.reward.config import RewardConfig, weights_of
from codedance_verl.reward.difficulty import DifficultyForm, difficulty
from codedance_verl.reward.presets import PAPER, PER_CALL_BONUS, RELEASE, ROBUST
from codedance_verl.reward.tool_calls import CallKind
from codedance_verl.reward.tool_terms import ToolTermInputs, tool_term

MU = np.linspace(0, 1, 201)
OK, FAILED = CallKind.HELPFUL, CallKind.FAILED
CASES = {
    "right, 1 call": ((OK,), True),
    "right, 3 calls": ((OK, OK, OK), True),
    "right, 1 of 2 failed": ((FAILED, OK), True),
    "right, 1 failed": ((FAILED,), True),
    "wrong, 1 call": ((OK,), False),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of the images")
    out = parser.parse_args().out
    draw_difficulty(out / "difficulty.png")
    draw_tool_terms(out / "tool_terms.png")
    draw_turns(out / "turns.png")


def draw_difficulty(path: Path) -> None:
    """d(mu) with gamma 4 and delta 0.2; dots where groups of 8 can be."""
    figure, axes = plt.subplots(figsize=(5.5, 3.4), dpi=130, layout="constrained")
    for form in DifficultyForm:
        line = [difficulty(mu, form=form, gamma=4, delta=0.2) for mu in MU]
        (drawn,) = axes.plot(MU, line, label=form.value)
        axes.plot(MU[::25], line[::25], "o", ms=4, color=drawn.get_color())
    _finish(axes, "accuracy of the group, mu", "d(mu)")
    figure.savefig(path)
    plt.close(figure)


def draw_tool_terms(path: Path) -> None:
    """The tool term of five rollouts under four presets."""
    presets = (PAPER, RELEASE, ROBUST, PER_CALL_BONUS)
    figure, panels = plt.subplots(1, len(presets), figsize=(15, 3.6), dpi=130, sharey=True, layout="constrained")
    for panel, preset in zip(panels, presets, strict=True):
        for name, (kinds, right) in CASES.items():
            panel.plot(MU, _term_over_mu(kinds, right, preset), label=name, ls="-" if right else "--")
        panel.set_title(preset.preset)
        _finish(panel, "accuracy of the group, mu", "tool term" if panel is panels[0] else "", legend=False)
    panels[-1].legend(frameon=False, fontsize=8)
    figure.savefig(path)
    plt.close(figure)


def _term_over_mu(kinds: Sequence[CallKind], right: bool, preset: RewardConfig) -> list[float]:
    weights = weights_of(preset, "")
    hardness = [difficulty(mu, form=preset.difficulty_form, gamma=preset.gamma, delta=preset.delta) for mu in MU]
    return [tool_term(ToolTermInputs(kinds, right, float(right), d, weights, preset)) for d in hardness]


def draw_turns(path: Path) -> None:
    """Turns ok, fail, ok, answer of a right rollout, among other prompts whose turns fail more or less often."""
    rates = (0.01, 0.1, 0.5)
    figure, panels = plt.subplots(1, 2, figsize=(10, 3.4), dpi=130, sharey=True, layout="constrained")
    for panel, preset in zip(panels, (PAPER, ROBUST.replace(min_group_std=0.0)), strict=True):
        for number, rate in enumerate(rates):
            places = np.arange(4) + 0.25 * (number - 1)
            panel.bar(places, _turn_advantages(preset, rate), width=0.22, label=f"{rate:.0%} of other turns fail")
        panel.set_xticks(range(4), ["ok", "fails", "recovers", "answer"])
        panel.set_title(f"{preset.preset}: {preset.turn_credit.value}")
        _finish(panel, "", "advantage" if panel is panels[0] else "")
    figure.savefig(path)
    plt.close(figure)


def _turn_advantages(preset: RewardConfig, failing: float) -> Any:
    others = 400
    rewards, mask = np.zeros((others + 2, 7), np.float32), np.zeros((others + 2, 7), np.int8)
    mask[:, ::2] = 1
    rewards[0, [2, 4, 6]] = [preset.failed_turn, preset.recovered_turn, 1.0]
    rewards[2 : 2 + int(failing * others), 0:5:2] = preset.failed_turn
    groups = ["ours", "ours", *(f"other{k // 8}" for k in range(others))]
    return token_advantages(rewards, mask, groups, preset)[0, ::2]


def _finish(axes: Any, x: str, y: str, *, legend: bool = True) -> None:
    axes.axhline(0, color="#999999", lw=0.8)
    axes.set(xlabel=x, ylabel=y)
    if legend:
        axes.legend(frameon=False, fontsize=8)


if __name__ == "__main__":
    main()
