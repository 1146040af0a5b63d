from __future__ import annotations

import pytest

from codedance_verl.reward.difficulty import DifficultyForm, difficulty

MU = (0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1)
PUBLISHED = {
    DifficultyForm.TANH: (0.782, 0.753, 0.681, 0.531, 0.300, 0.069, -0.081, -0.153, -0.182),
    DifficultyForm.SIGMOID: (0.681, 0.618, 0.531, 0.422, 0.300, 0.178, 0.069, -0.018, -0.081),
}


@pytest.mark.parametrize("form", DifficultyForm)
def test_worked_table(form: DifficultyForm) -> None:
    values = [difficulty(mu, form=form, gamma=4, delta=0.2) for mu in MU]
    assert values == pytest.approx(PUBLISHED[form], abs=1e-3)


@pytest.mark.parametrize(("form", "zero"), [(DifficultyForm.TANH, 0.673), (DifficultyForm.SIGMOID, 0.847)])
def test_the_accuracy_at_which_a_group_turns_easy(form: DifficultyForm, zero: float) -> None:
    assert (
        difficulty(zero - 1e-3, form=form, gamma=4, delta=0.2)
        > 0
        > difficulty(zero + 1e-3, form=form, gamma=4, delta=0.2)
    )


@pytest.mark.parametrize("form", DifficultyForm)
def test_a_mean_score_far_from_the_middle_has_the_limit(form: DifficultyForm) -> None:
    hard, easy = (difficulty(mu, form=form, gamma=100, delta=0.2) for mu in (-10, 10))
    assert (hard, easy) == pytest.approx((0.8, -0.2))


def test_steepness_and_offset_do_what_they_say() -> None:
    flat, steep = (difficulty(0.25, form=DifficultyForm.SIGMOID, gamma=gamma, delta=0) for gamma in (1, 10))
    assert 0.5 < flat < steep
    assert difficulty(0.25, form=DifficultyForm.SIGMOID, gamma=1, delta=0.1) == pytest.approx(flat - 0.1)
    assert difficulty(1, form=DifficultyForm.TANH, gamma=100, delta=0) == pytest.approx(0)
