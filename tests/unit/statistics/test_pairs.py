from __future__ import annotations

from itertools import product
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codedance_verl.statistics.intervals import Z_95, Interval
from codedance_verl.statistics.pairs import PairedCounts, mcnemar, newcombe_pairs, score_interval, sign_flip

TABLE_III = {
    (36, 12, 2, 0): (0.0569, 0.3404),
    (20, 12, 2, 16): (0.0562, 0.3292),
    (18, 12, 2, 18): (0.0562, 0.3290),
    (36, 14, 0, 0): (0.1528, 0.4167),
    (35, 14, 0, 1): (0.1461, 0.4175),
    (18, 14, 0, 18): (0.1441, 0.3963),
    (2, 97, 1, 0): (0.8721, 0.9854),
    (1, 97, 1, 1): (0.8736, 0.9850),
    (0, 29, 1, 0): (0.6666, 0.9882),
    (2, 98, 0, 0): (0.9178, 0.9945),
    (0, 30, 0, 0): (0.8395, 1.0),
    (54, 0, 0, 0): (-0.0664, 0.0664),
    (53, 0, 0, 1): (-0.0729, 0.0729),
    (30, 0, 0, 24): (-0.0358, 0.0358),
    (27, 0, 0, 27): (-0.0351, 0.0351),
}

tables = st.tuples(*[st.integers(0, 60)] * 4).filter(any).map(lambda cells: PairedCounts(*cells))


@pytest.mark.parametrize(
    ("only_a", "only_b", "exact", "mid"),
    [
        # 2 (1 + 8) / 2^8, less the probability of what was seen, 8 / 2^8: airway reactivity, Bentur et al. 2009,
        # as tested by Fagerland, Lydersen and Laake, BMC Medical Research Methodology 13:91 (2013).
        (1, 7, 18 / 256, 10 / 256),
        (0, 5, 2 / 32, 1 / 32),  # five of five: not yet under 5 %
        (0, 6, 2 / 64, 1 / 64),
        (2, 8, 2 * (1 + 10 + 45) / 1024, (2 * (1 + 10) + 45) / 1024),
        (3, 3, 1.0, 1 - 20 / 64 / 2),
        (0, 0, 1.0, 0.5),
    ],
)
def test_mcnemar_by_hand(only_a: int, only_b: int, exact: float, mid: float) -> None:
    found = mcnemar(only_a, only_b)
    assert found.exact == pytest.approx(exact) and found.mid == pytest.approx(mid)
    assert mcnemar(only_b, only_a) == found


def test_mcnemar_of_thousands_is_a_binomial_tail() -> None:
    tail = 2 * sum(comb(1000, k) for k in range(451)) / 2**1000
    assert mcnemar(450, 550).exact == pytest.approx(tail, rel=1e-9)
    assert 0 < mcnemar(100, 900).exact < 1e-150


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0]), min_size=1, max_size=9))
def test_sign_flip_counts_all_exchanges(differences: list[float]) -> None:
    observed = abs(sum(differences))
    sums = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in product((-1, 1), repeat=len(differences))
    ]
    found = sign_flip(np.array(differences))
    assert found.exact == pytest.approx(sum(one >= observed for one in sums) / len(sums))
    assert found.mid == pytest.approx((found.exact + sum(one > observed for one in sums) / len(sums)) / 2)


def test_scores_without_a_common_part_have_their_exchanges_drawn() -> None:
    differences = np.random.default_rng(0).normal(0.3, 1.0, 60)
    found, whole = sign_flip(differences), sign_flip(np.round(differences, 1))
    assert found.exact == pytest.approx(whole.exact, abs=0.01) and found == sign_flip(-differences[::-1])
    assert sign_flip(np.array([np.pi, np.e])).exact == pytest.approx(0.5, abs=0.02)
    assert sign_flip(np.linspace(1, 2, 90) * np.pi).exact == 1 / 20_001


@pytest.mark.parametrize(("cells", "published"), TABLE_III.items())
def test_newcombe_against_published_values(cells: tuple[int, int, int, int], published: tuple[float, float]) -> None:
    """R. G. Newcombe, Statistics in Medicine 17 (1998) 2635, table III, method 10."""
    assert newcombe_pairs(PairedCounts(*cells)) == pytest.approx(published, abs=1e-4)


def test_both_intervals_of_published_data() -> None:
    """Bentur's data: M. W. Fagerland, S. Lydersen and P. Laake, Statistics in Medicine 33 (2014) 2850."""
    assert newcombe_pairs(PairedCounts(1, 1, 7, 12)) == pytest.approx((-0.507, -0.026), abs=5e-4)
    assert score_interval(1, 7, 21) == pytest.approx((-0.517, -0.026), abs=5e-4)


@settings(deadline=None, max_examples=40)
@given(tables)
def test_the_score_interval_ends_at_roots_of_its_quartic(table: PairedCounts) -> None:
    """Z. Yang, X. Sun and J. W. Hardin (Statistics in Medicine 32, 2013): the ends solve an equation of degree 4."""
    n, b, c = table.pairs, table.only_a, table.only_b
    g, d = Z_95**2, b - c
    quartic = [
        n**2 * (n / g + 1) ** 2,
        -n * d * (n / g + 1) * (4 * n / g + 1),
        2 * n * d**2 * (3 * n / g + 2) / g - n**2 * ((b + c) / g + 1),
        n * d * (2 * (b + c) / g + 1) - d**3 * (4 * n / g + 1) / g,
        d**2 * (d**2 / g - (b + c)) / g,
    ]
    for end in score_interval(b, c, n):
        if abs(end) < 1 - 1e-6:
            terms = [factor * end**power for factor, power in zip(quartic, (4, 3, 2, 1, 0), strict=True)]
            assert sum(terms) == pytest.approx(0, abs=1e-6 * max(map(abs, terms)))


@settings(deadline=None, max_examples=40)
@given(tables)
def test_exchanging_the_models_changes_the_sign(table: PairedCounts) -> None:
    swapped = PairedCounts(table.both, table.only_b, table.only_a, table.neither)
    score, swapped_score = (score_interval(side.only_a, side.only_b, side.pairs) for side in (table, swapped))
    for one, other in ((newcombe_pairs(table), newcombe_pairs(swapped)), (score, swapped_score)):
        assert other == pytest.approx(Interval(-one.high, -one.low), abs=1e-9)


@settings(deadline=None, max_examples=40)
@given(tables)
def test_intervals_hold_the_difference_stay_in_range_and_have_a_width(table: PairedCounts) -> None:
    for low, high in (newcombe_pairs(table), score_interval(table.only_a, table.only_b, table.pairs)):
        assert -1 - 1e-9 <= low <= table.difference + 1e-9 and table.difference - 1e-9 <= high <= 1 + 1e-9
        assert high - low > 1e-3


def test_no_discordant_pair_leaves_z_squared_by_n_plus_z_squared() -> None:
    end = Z_95**2 / (50 + Z_95**2)
    assert score_interval(0, 0, 50) == pytest.approx((-end, end))
