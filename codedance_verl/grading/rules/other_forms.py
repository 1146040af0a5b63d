"""Forms of an answer or its ground truth that the rules may find equal where the texts as they stand are not.

Each is tried for a match only: what is right stays right, and what matches in no form stays wrong, or open.
"""

from __future__ import annotations

from collections.abc import Iterator

from codedance_verl.grading.rules.algebra_forms import both_solutions, product_of_letters
from codedance_verl.grading.rules.geometry_names import in_one_direction
from codedance_verl.grading.rules.sentences import bare_answer, bare_point
from codedance_verl.grading.rules.word_variants import in_american, without_accents
from codedance_verl.grading.rules.working import result_of

_OF_BOTH = (both_solutions, product_of_letters, in_one_direction, in_american)


def other_forms(answer: str, ground_truth: str, question: str) -> Iterator[tuple[str, str]]:
    """Pairs of an answer and a ground truth to compare, at most 15; none without a question."""
    if not question:
        return
    yield from _forms(answer, ground_truth, question)
    if (bare := bare_answer(answer, ground_truth, question)) is not None:
        yield bare, ground_truth
        yield from _forms(bare, ground_truth, question)


def _forms(answer: str, ground_truth: str, question: str) -> Iterator[tuple[str, str]]:
    for shorten in (bare_point, result_of):
        if (shorter := shorten(answer, ground_truth, question)) is not None:
            yield shorter, ground_truth
    if (unaccented := without_accents(answer, ground_truth, question)) is not None:
        yield answer, unaccented
    for change in _OF_BOTH:
        if (changed := change(answer, ground_truth, question)) is not None:
            yield changed
