"""Variants that are compared: one name and its keys of the configuration each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from codedance_verl.errors import UserError


@dataclass(frozen=True)
class Variant:
    """A method: its name, what it is in a few words, and what it changes in the configuration of the demo."""

    name: str
    title: str
    overrides: tuple[str, ...]


VARIANTS: tuple[Variant, ...] = (
    Variant("outcome", "accuracy and format", ("reward_preset=outcome",)),
    Variant("per_call_bonus", "+ a bonus per call", ("reward_preset=per_call_bonus",)),
    Variant("paper", "CodeDance, as published", ("reward_preset=paper",)),
    Variant("release", "CodeDance, published code", ("reward_preset=release",)),
    Variant("robust", "this project's default", ("reward_preset=robust",)),
    Variant("gtpo", "turn-level returns (GTPO)", ("reward_preset=gtpo",)),
    Variant("gated", "gated rewards (G-RA)", ("reward_preset=gated",)),
    Variant("taco", "value of calling in the group (TACO)", ("reward_preset=taco",)),
    Variant(
        "at_grpo",
        "calls by tool benefit (AT-GRPO)",
        ("reward_preset=at_grpo", "reward_preset.tool_term.benefit_calls=2"),
    ),
    Variant(
        "fatal_aware",
        "fatal failures masked (OpenSearch-VL)",
        ("reward_preset=fatal_aware", "reward_preset.fatal_failures=2"),
    ),
    Variant(
        "roc",
        "resample on correct (GRPO-RoC)",
        # 8 rollouts are drawn as everywhere, and 4 of them are kept
        ("reward_preset=outcome", "sampling.keep=on_correct", "sampling.oversample=2", "actor_rollout_ref.rollout.n=4"),
    ),
    Variant(
        "ats",
        "code at temperature 0 (GRPO-ATS)",
        ("reward_preset=outcome", "sampling.code_temperature=0"),
    ),
    Variant(
        "axpo",
        "calls redrawn under a kept thought (AXPO)",
        # of the 8 rollouts 4 wait for the others, as many as the paper draws of a call
        ("reward_preset=outcome", "sampling.redraw_calls=4"),
    ),
    Variant(
        "robust_ats",
        "`robust`, code at temperature 0",
        ("reward_preset=robust", "sampling.code_temperature=0"),
    ),
)
OURS = "robust"

DEFAULT = "default"
NOT_BY_DEFAULT = ("release", "gtpo", "gated", "roc", "ats")
"""Variants that run only where they are named: each takes a whole run a seed, and earlier ones did not stand out."""


def chosen(text: str) -> tuple[Variant, ...]:
    """The variants named in "a,b", in the order of `VARIANTS`; all for "all", those for "default" that run by default.

    Raises UserError for an unknown name.
    """
    known = [variant.name for variant in VARIANTS]
    some = [name for name in known if name not in NOT_BY_DEFAULT]
    names = {"all": known, DEFAULT: some}.get(text) or [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise UserError(f"--variants {text}: {name!r} is none of {', '.join(known)}")
    return tuple(variant for variant in VARIANTS if variant.name in names)


def run_name(variant: str, seed: int) -> str:
    """Name of the stage and of the folder of one run."""
    return f"{variant}_seed{seed}"


def names_of(variants: Sequence[Variant]) -> str:
    return ",".join(variant.name for variant in variants)
