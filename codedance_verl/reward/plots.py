"""Image of `codedance reward explain --plot`: d(mu), and the terms of the rollouts of one group."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from codedance_verl.reward.config import RewardConfig, weights_of
from codedance_verl.reward.difficulty import DifficultyForm, difficulty
from codedance_verl.reward.explain import Explained

MOST_SHOWN = 32
_TERMS = ("accuracy", "format", "tools", "custom")
_COLOURS = ("#4878a8", "#c44e52", "#55a868", "#8172b2")
_OWN_TERM = "#ccb974"


def draw(group: Sequence[Explained], config: RewardConfig, path: Path) -> None:
    """Writes a PNG: d over mu with the group's place on it, and for each rollout its terms and its turn advantages.

    More than 32 rollouts are cut to the first 32. Raises `OSError` when the file cannot be written.
    """
    shown = list(group[:MOST_SHOWN])
    figure = Figure(figsize=(14, 4), dpi=130, layout="constrained")
    axes = figure.subplots(1, 3, width_ratios=[1, 1.6, 1.6])
    _draw_difficulty(axes[0], config, shown)
    _draw_terms(axes[1], shown, config)
    _draw_advantages(axes[2], shown)
    figure.suptitle(f"preset {config.preset}, group {shown[0].line.group[:60]}", parse_math=False)
    figure.savefig(path, format="png")


def _draw_difficulty(axes: Any, config: RewardConfig, group: Sequence[Explained]) -> None:
    mu = np.linspace(0, 1, 201)
    for form in DifficultyForm:
        chosen = form is config.difficulty_form
        curve = [difficulty(float(value), form=form, gamma=config.gamma, delta=config.delta) for value in mu]
        axes.plot(mu, curve, lw=2 if chosen else 1, ls="-" if chosen else ":", label=form)
    axes.axhline(0, color="#999999", lw=0.8)
    counted = [item.terms for item in group if not item.terms.masked]
    if counted:
        axes.axhline(counted[0].difficulty, color=_COLOURS[1], lw=1, ls="--", label="this group")
    axes.set(xlabel="mean of the group, mu", ylabel="d(mu)", title="difficulty")
    axes.legend(frameon=False)


def _draw_terms(axes: Any, group: Sequence[Explained], config: RewardConfig) -> None:
    """Stacked bars, what takes from the score below zero; a dot marks the score."""
    x = np.arange(len(group))
    values = np.array([_weighted(item, config) for item in group]).T  # [terms, rollouts]
    drawn = _TERMS if config.custom_term is not None else _TERMS[:-1]
    for row, (name, colour) in enumerate(zip(drawn, (*_COLOURS[:3], _OWN_TERM), strict=False)):
        # a bar stands on those before it on its side of zero, so that what takes from the score hangs below
        same_sign = np.where(np.sign(values[:row]) == np.sign(values[row]), values[:row], 0.0).sum(axis=0)
        axes.bar(x, values[row], bottom=same_sign, color=colour, label=name, width=0.7)
    axes.plot(x, [item.terms.score for item in group], "o", color="black", ms=4, label="score")
    _label_rollouts(axes, group, "terms, with their weights")
    axes.legend(frameon=False, fontsize=8)


def _weighted(item: Explained, config: RewardConfig) -> tuple[float, ...]:
    """Returns the summands of a rollout's score, in the order of `_TERMS`."""
    terms, weights = item.terms, weights_of(config, item.line.trajectory.data_source)
    graded = weights.accuracy * terms.accuracy, weights.format * terms.format
    return *graded, terms.sequence, config.custom_weight * terms.custom


def _draw_advantages(axes: Any, group: Sequence[Explained]) -> None:
    for x, item in enumerate(group):
        count = len(item.turn_advantage)
        width = 0.8 / count  # of one turn: those of a rollout share 0.8 of its place
        places = x - 0.4 + width * (np.arange(count) + 0.5)
        axes.bar(places, item.turn_advantage, width=0.9 * width, color=_COLOURS[3])
    _label_rollouts(axes, group, "advantage of each turn, in order")


def _label_rollouts(axes: Any, group: Sequence[Explained], title: str) -> None:
    axes.axhline(0, color="#999999", lw=0.8)
    labels = [f"{item.line.number}{'*' if item.terms.masked else ''}" for item in group]
    axes.set_xticks(range(len(group)), labels, fontsize=8)
    axes.set(title=title, xlabel="rollout (line of the file; * masked)")
