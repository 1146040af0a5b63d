from __future__ import annotations

from math import factorial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codedance_verl.errors import UserError
from codedance_verl.statistics.pairs import mcnemar
from codedance_verl.statistics.power import (
    assumed_discordance,
    paired_power,
    smallest_paired,
    smallest_unpaired,
    unpaired_power,
)


def test_paired_power_by_all_tables() -> None:
    """Sums the probability of each table of 12 pairs whose exact p-value is at most 5 %."""
    gained, lost, total = 0.5, 0.1, 0.0
    for b in range(13):
        for c in range(13 - b):
            ways = factorial(12) / factorial(b) / factorial(c) / factorial(12 - b - c)
            total += ways * gained**b * lost**c * 0.4 ** (12 - b - c) * (mcnemar(b, c).exact <= 0.05)
    assert paired_power(12, 0.6, 0.4) == pytest.approx(total, rel=1e-6)


def test_paired_power_by_simulation() -> None:
    generator = np.random.default_rng(0)
    drawn = generator.multinomial(3040, [0.115, 0.085, 0.8], 2_000)
    found = np.mean([mcnemar(b, c).exact <= 0.05 for b, c, _ in drawn])
    assert paired_power(3040, 0.2, 0.03) == pytest.approx(found, abs=0.025)  # standard error 0.006


@pytest.mark.parametrize(("difference", "discordance", "published"), [(0.10, 0.20, 155), (0.10, 0.25, 194)])
def test_size_is_near_that_of_the_asymptotic_formula(difference: float, discordance: float, published: int) -> None:
    """R. J. Connor, Biometrics 43 (1987): (1.96 sqrt(psi) + 0.8416 sqrt(psi - d^2))^2 / d^2; exact tests need more."""
    smallest = smallest_paired(published, discordance).smallest
    assert smallest is not None and difference < smallest < 1.1 * difference


def test_unpaired_size_against_a_textbook() -> None:
    """J. L. Fleiss, Statistical Methods for Rates and Proportions: 0.25 against 0.40 needs 152 a side (uncorrected)."""
    assert unpaired_power(152, 0.25, 0.40) == pytest.approx(0.8, abs=0.005)
    assert smallest_unpaired(152, 0.25).smallest == pytest.approx(0.15, abs=0.001)


def test_under_the_null_the_power_is_at_most_the_level() -> None:
    for pairs in (20, 191, 1000, 3940):
        assert paired_power(pairs, 0.13, 0.0) <= 0.05


def test_a_power_line_in_words() -> None:
    line = smallest_paired(191, 0.13, design_effect=1.2)
    assert line.smallest is not None
    assert line.sentence == (
        f"191 items: a difference under {100 * line.smallest:.1f} points cannot be seen "
        "(paired; one model alone right on 13.0 %; design effect 1.20; power 80 %, level 5 %)."
    )
    assert smallest_paired(30, 0.05).sentence.startswith("30 items: no difference can be seen (paired;")
    assert "(not paired; power 80 %, level 5 %)" in smallest_unpaired(191, 0.8).sentence


@settings(deadline=None, max_examples=12)
@given(st.integers(60, 3000), st.floats(0.05, 0.5), st.floats(1.0, 4.0))
def test_clusters_pairing_and_numbers_move_it_as_they_should(items: int, discordance: float, effect: float) -> None:
    def points(number: int, share: float, design_effect: float = 1.0) -> float:
        return smallest_paired(number, share, design_effect=design_effect).smallest or 1.0

    base = points(items, discordance)
    assert points(items, discordance, effect) >= base - 1e-6
    assert points(2 * items, discordance) <= base + 1e-6
    assert paired_power(items, discordance, base if base < 1 else discordance) >= (0.8 if base < 1 else 0.0) - 1e-9


def test_pairing_helps_where_models_are_alike() -> None:
    paired, apart = smallest_paired(800, assumed_discordance(0.75)), smallest_unpaired(800, 0.75)
    assert paired.smallest is not None and apart.smallest is not None and paired.smallest < 0.8 * apart.smallest


def test_assumed_discordance() -> None:
    assert assumed_discordance(0.5, 0.0) == 0.5 and assumed_discordance(0.5, 1.0) == 0.0
    assert assumed_discordance(0.9) == pytest.approx(0.09)


def test_sizes_that_cannot_be_are_refused() -> None:
    for wrong in (
        lambda: smallest_paired(0, 0.1),
        lambda: smallest_paired(10, 0.0),
        lambda: smallest_unpaired(10, 0.5, design_effect=0),
    ):
        with pytest.raises(UserError):
            wrong()
