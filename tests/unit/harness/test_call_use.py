"""Classes by hand-made outputs of replays: dependence, statements, constants, failing replays."""

from __future__ import annotations

import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from codedance_verl.harness.altered_images import LOCAL, OF_EVIDENCE, Alteration
from codedance_verl.harness.call_code import CodeFacts
from codedance_verl.harness.call_outputs import Output, images_differ, normalised, shows_nothing_new
from codedance_verl.harness.call_use import Known, Replayed, Use, signs_of, use_of
from codedance_verl.harness.stated_answers import answer_of
from codedance_verl.types import RenderedImage

PLAIN = CodeFacts(reads_image=True, computes=False, constants="", boxes=())


def rendered(pixels: np.ndarray) -> RenderedImage:
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
    png = file.getvalue()
    return RenderedImage(hashlib.sha256(png).hexdigest(), pixels.shape[1], pixels.shape[0], png)


def picture(value: int = 0, mark: int = 0) -> np.ndarray:
    found = np.full((40, 60, 3), 100)
    found[10 : 10 + mark, 10 : 10 + mark] = value
    return found


def text(said: str, succeeded: bool = True) -> Output:
    return Output(said, (), succeeded)


def use(
    unchanged: Output,
    altered: dict[Alteration, Output],
    facts: CodeFacts = PLAIN,
    answer: str = "4",
    shown: int = 1,
    known: Known = (),
    whole: bool = False,
) -> Use:
    outputs = {which: altered.get(which, unchanged) for which in Alteration}
    return use_of(signs_of(Replayed(unchanged, outputs, whole), facts, answer_of(answer), shown, known), facts)


GREYED = {which: text("0") for which in LOCAL}
FAILS = {which: text("ValueError: empty", False) for which in LOCAL}


@pytest.mark.parametrize(("whole", "expected"), [(True, Use.USED), (False, Use.HARD_CODED)])
def test_code_that_fails_on_a_grey_image_depends_on_it_where_no_place_is_known(whole: bool, expected: Use) -> None:
    assert use(text("4"), {Alteration.GREYED: text("ValueError: empty", False)}, whole=whole) is expected


@pytest.mark.parametrize(
    ("said", "altered", "literal", "expected"),
    [
        ("4", GREYED, "", Use.USED),
        ("7", {which: text("1") for which in LOCAL}, "", Use.UNUSED),
        ("4", {}, "4", Use.HARD_CODED),
        ("4", {}, "", Use.HARD_CODED),
        ("7", {}, "7", Use.DECORATIVE),
        ("mean 88\n4", {which: text("mean 12\n4") for which in OF_EVIDENCE}, "4", Use.HARD_CODED),
        ("4", {Alteration.SWAPPED: text("9"), Alteration.NOISE: text("8")}, "", Use.DECORATIVE),
        ("4", FAILS, "4", Use.HARD_CODED),
        ("4", FAILS | {Alteration.MOVED: text("9")}, "", Use.USED),
        ("4", {which: text("IndexError", False) for which in OF_EVIDENCE}, "", Use.USED),
    ],
)
def test_text(said: str, altered: dict[Alteration, Output], literal: str, expected: Use) -> None:
    assert use(text(said), altered, CodeFacts(True, False, literal, ())) is expected


def test_a_test_of_the_evidence_may_come_out_the_same() -> None:
    altered = {which: text(f"mean {place}, yes") for place, which in enumerate(LOCAL)}
    assert use(text("mean 99, yes"), altered, answer="yes") is Use.USED


def test_a_calculation_from_given_numbers_is_apart() -> None:
    computes = CodeFacts(reads_image=False, computes=True, constants="", boxes=())
    assert use(text("9"), {which: text("8") for which in LOCAL}, computes) is Use.UNUSED
    assert use(text("4"), {}, computes) is use(text("9"), {}, computes) is Use.CALCULATION


def test_displayed_images() -> None:
    whole = Output("", (rendered(picture()),), True)
    gone = {which: Output("", (rendered(picture(200, 12)),), True) for which in LOCAL}
    assert use(whole, gone) is Use.USED
    assert use(whole, gone, shown=0) is Use.UNUSED
    assert use(whole, {Alteration.GREYED: gone[Alteration.GREYED]}) is Use.DECORATIVE, "only the rim of it is shown"
    assert use(whole, {}) is Use.DECORATIVE
    assert use(whole, gone, known=[picture().astype(np.uint8)]) is Use.DECORATIVE, "a copy of what was there"
    assert use(whole, gone, known=[picture(0, 9).astype(np.uint8)]) is Use.USED, "a mark is new"
    larger = np.kron(picture(), np.ones((3, 3, 1))).astype(np.uint8)
    assert use(whole, gone, known=[larger]) is Use.DECORATIVE, "a smaller copy"


def test_an_image_that_is_missing_without_the_evidence_depends_on_it() -> None:
    assert use(Output("", (rendered(picture()),), True), dict.fromkeys(LOCAL, text(""))) is Use.USED
    assert use(Output("", (rendered(picture()),), True), FAILS) is Use.USED


def test_differences_that_can_be_seen() -> None:
    assert not images_differ(rendered(picture()), rendered(picture(110, 30)))
    assert not images_differ(rendered(picture()), rendered(picture(255, 3)))
    assert images_differ(rendered(picture()), rendered(picture(255, 4)))
    assert images_differ(rendered(picture()), rendered(picture()[:30]))
    assert not shows_nothing_new(rendered(np.kron(picture(), np.ones((2, 2, 1)))), [picture().astype(np.uint8)])


def test_text_without_what_differs_by_chance() -> None:
    assert normalised("\n<A at 0x7f00aa12bc>  \nb \t\n\n") == "<A at 0x>\nb"
    assert normalised(" " * 60_000 + "x") == " " * 60_000 + "x"
