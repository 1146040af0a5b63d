"""Use of the evidence by a call: four classes, by what its output and the answer do when the evidence is altered.

The output of a call is its text and its displayed images, each looked at alone. With *altered* outputs, those of
replays that ran to their end with an image that was changed (`altered_images.py`):

- The text **depends on the evidence** where it differs with the evidence greyed, as a whole or in its core, which
  changes no other pixel. A replay that fails says nothing, since any code may fail on an image without its object; if
  all of these fail, it depends where it also differs, or fails, with the evidence moved and swapped. Where the whole
  image is the evidence, code that fails on a grey one depends on it.
- A displayed image depends on the evidence where the core of the evidence, greyed, can be seen in it. It counts if the
  model was shown it, and if it is no copy of an image that the model had, at its size or smaller.
- The text **states** the answer (`stated_answers.py`). The statement **follows** the evidence where the text depends on
  it and an altered text does not state the answer.
- The statement is **constant** where it does not follow and the code has it as a literal outside of any test, or where
  the text is the same with whatever image.

Classes, the first that fits:

1. `USED`: a displayed image that counts depends on the evidence; or the text depends on it and states the answer, and
   the statement is not constant.
2. `HARD_CODED`: the text states the answer, the statement is constant, and the code reads the image or computes
   nothing.
3. `CALCULATION`, no class of the four: code that does not read the image computes what it prints, which does not depend
   on the evidence, whether or not it states the answer. There is no evidence to be faithful to.
4. `UNUSED`: the text depends on the evidence and does not state the answer, or a displayed image depends on it that the
   model was not shown.
5. `DECORATIVE`: the rest. Nothing that is shown depends on the evidence: another place, a copy, or nothing at all.

`faithfulness.py` lifts a call of class 4 or 5 to `USED` if a later call that is `USED` needs it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from codedance_verl.harness.altered_images import LOCAL, OF_EVIDENCE, Alteration
from codedance_verl.harness.call_code import CodeFacts
from codedance_verl.harness.call_outputs import Output, images_differ, shows_nothing_new
from codedance_verl.harness.stated_answers import Answer


class Use(StrEnum):
    """Use of the evidence. The first four are the classes; calls with one of the others are counted apart."""

    USED = "used"
    UNUSED = "unused"
    DECORATIVE = "decorative"
    HARD_CODED = "hard_coded"
    CALCULATION = "calculation"  # it computes from numbers that the model wrote, without the image
    NOT_REPEATABLE = "not_repeatable"  # its output differs from the recorded one although nothing was changed
    FAILED = "failed"  # it failed when it was recorded
    FAULT = "fault"  # it could not be replayed: time limit, end of its session, fault of the sandbox


CLASSES = (Use.USED, Use.UNUSED, Use.DECORATIVE, Use.HARD_CODED)

Known = Sequence[NDArray[np.uint8]]
"""Images that the model had before a call, each of shape (height, width, 3)."""


@dataclass(frozen=True)
class Signs:
    """Facts from which a class follows; the module says how.

    Attributes:
        text_depends, image_depends: the text, or a displayed image that counts, depends on the evidence.
        hidden_depends: an image that the model was not shown does.
        states: the text states the answer.
        follows: the statement follows the evidence.
        constant: the statement is constant.
    """

    text_depends: bool = False
    image_depends: bool = False
    hidden_depends: bool = False
    states: bool = False
    follows: bool = False
    constant: bool = False


@dataclass(frozen=True)
class Replayed:
    """Outputs of a call: with the images it had, and with altered ones as far as there are replays.

    `whole`: the evidence is the whole image, as no place in it is known.
    """

    unchanged: Output
    altered: Mapping[Alteration, Output]
    whole: bool = False

    def succeeded(self, among: Sequence[Alteration]) -> list[Output]:
        """Altered outputs of replays that ran to their end."""
        return [self.altered[which] for which in among if which in self.altered and self.altered[which].succeeded]


def signs_of(replayed: Replayed, facts: CodeFacts, answer: Answer, images_shown: int, known: Known) -> Signs:
    """Signs of a call. `images_shown`: displayed images that the model was shown; `known`: those it had before."""
    text = replayed.unchanged.text
    seen = [_image_depends(replayed, place) for place in range(len(replayed.unchanged.images))]
    counts = [
        depends and not shows_nothing_new(replayed.unchanged.images[place], known)
        for place, depends in enumerate(seen[:images_shown])
    ]
    depends, states = _text_depends(replayed), answer.stated_in(text)
    follows = states and depends and _statement_goes(replayed, answer)
    literal = answer.stated_in(facts.constants)
    # other images altogether too: a text that differs with those was computed from the image
    same = not depends and all(output.text == text for output in replayed.succeeded(tuple(Alteration)))
    return Signs(
        text_depends=depends,
        image_depends=any(counts),
        hidden_depends=any(seen[images_shown:]),
        states=states,
        follows=follows,
        constant=states and not follows and (literal or same),
    )


def use_of(signs: Signs, facts: CodeFacts) -> Use:
    """Class by the signs, or `CALCULATION`."""
    if signs.image_depends or (signs.text_depends and signs.states and not signs.constant):
        return Use.USED
    calculates = facts.computes and not facts.reads_image and not signs.text_depends
    if signs.constant and not calculates:
        return Use.HARD_CODED
    if calculates:
        return Use.CALCULATION
    return Use.UNUSED if signs.text_depends or signs.hidden_depends else Use.DECORATIVE


def _text_depends(replayed: Replayed) -> bool:
    text = replayed.unchanged.text
    # before the rest, since code may have run with `CORE`, whose rim still shows the image
    if replayed.whole and Alteration.GREYED in replayed.altered and not replayed.altered[Alteration.GREYED].succeeded:
        return True
    if local := replayed.succeeded(LOCAL):
        return any(output.text != text for output in local)
    if not any(which in replayed.altered for which in LOCAL):  # time limits or faults: nothing is known
        return False
    elsewhere = replayed.succeeded(OF_EVIDENCE)
    return not elsewhere or any(output.text != text for output in elsewhere)


def _statement_goes(replayed: Replayed, answer: Answer) -> bool:
    altered = replayed.succeeded(OF_EVIDENCE)
    return not altered or any(not answer.stated_in(output.text) for output in altered)


def _image_depends(replayed: Replayed, place: int) -> bool:
    """True where the greyed core can be seen in a displayed image; by the whole evidence where that replay failed."""
    # the order counts: the first that ran decides
    local = [replayed.altered[which] for which in (Alteration.CORE, Alteration.GREYED) if which in replayed.altered]
    if not local:
        return False
    ran = [output for output in local if output.succeeded]
    # Code that fails only without the evidence cannot have shown something else.
    if not ran or len(ran[0].images) != len(replayed.unchanged.images):
        return True
    return images_differ(replayed.unchanged.images[place], ran[0].images[place])
