"""Records of a benchmark: items as they are asked, scores of replies, requests to a judge.

An item is small whatever its images are: they are references, read when they are asked for. A benchmark of any size
can so be listed whole, and its images are in memory one at a time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from codedance_verl.grading.matchers import RULE


class UnreadableImage(Exception):
    """Fault of an image, with the file and row it stands in."""


class ImageReference(Protocol):
    """Place of an encoded image. References are frozen, can be pickled, and open nothing until they are read."""

    @property
    def where(self) -> str:
        """File, and row of a table, for messages."""
        ...

    def fault(self) -> str:
        """Reason for which there is no such image, as far as it is known without reading it; empty for none."""
        ...

    def read(self) -> bytes:
        """Encoded image. Raises UnreadableImage: there is none, or it cannot be read; it is not decoded here."""
        ...


@dataclass(frozen=True)
class Item:
    """Question of a benchmark.

    `Task.items` sets `task`, `revision`, `cluster` where a converter left it empty, and the fault of a missing image.

    Attributes:
        id: name, unique in the revision.
        question: text as prompted, with options and instruction, without placeholders: the images stand before it.
        images: references of the images, in order.
        truth: right answer in the form that the grader reads (several by `encode_alternatives`), a letter for
            questions with options; None where the revision keeps it to itself.
        choices: texts of the options in the order of their letters; empty for an open question.
        style: comparison by the grader (`grading/matchers.py`), for the figure called ours.
        graded_question: question that the grader reads, where it is another one than the model does; empty: `question`.
        system: text of a system message before the question; empty: the one of the model's settings, if any.
        task: name of the benchmark, as in the registry.
        revision: revision of the published files that converter, counts and rule were written for.
        cluster: items with the same cluster are dependent and are resampled together.
        strata: parts that figures are given for, such as category, version, cycle, split, type.
        facts: what else the official rule looks at.
        fault: reason, with file and row, for which the item cannot be asked; empty for none. Such an item stays in the
            denominator.
    """

    id: str
    question: str
    images: tuple[ImageReference, ...]
    truth: str | None
    task: str = ""
    revision: str = ""
    cluster: str = ""
    choices: tuple[str, ...] = ()
    style: str = RULE
    graded_question: str = ""
    system: str = ""
    strata: Mapping[str, str] = field(default_factory=dict, hash=False)
    facts: Mapping[str, Any] = field(default_factory=dict, hash=False)
    fault: str = ""

    @property
    def sha256(self) -> str:
        """Digest (hex) of id, questions, truth and options, images aside: the same from layouts that agree in them."""
        asked = [self.id, self.question, self.truth, list(self.choices)]
        asked += [text for text in (self.graded_question, self.system) if text]
        # half a surrogate pair in a published text has no UTF-8
        return hashlib.sha256(json.dumps(asked, ensure_ascii=False).encode("utf-8", "replace")).hexdigest()

    @property
    def key(self) -> str:
        """Id and first 16 digits of the digest, by which evaluations are compared (`statistics/comparison.py`).

        Ids alone may be numbers of rows, which are other questions in a layout of another order.
        """
        return f"{self.id}#{self.sha256[:16]}"


@dataclass(frozen=True)
class Score:
    """Result of a rule for one reply.

    Attributes:
        value: 0 to 1; None where the rule has no verdict (no truth, no usable reply of a judge).
        rule: name of the rule.
        extracted: what was compared, None where nothing was found in the reply.
        reason: why there is no verdict; empty where there is one.
    """

    value: float | None
    rule: str
    extracted: str | None = None
    reason: str = ""

    @classmethod
    def of(cls, right: bool, rule: str, extracted: str | None) -> Score:
        """1 or 0."""
        return cls(float(right), rule, extracted)


@dataclass(frozen=True)
class JudgeRequest:
    """Question to a judge that an official rule asks; another part of the program sends it.

    Attributes:
        rule: name of the rule and step, such as `charxiv` or `mathverse.extract`.
        prompt: text of the one user message.
        system: text of the system message, empty for none.
        template_sha256: digest (hex) of the prompt's fixed parts, which names the prompt in reports.
        read: reads a reply: a score, the next request of the same item, or None where the reply has no usable form and
            the question is to be asked again.
        failed: score that stands where no usable reply came within `attempts`.
        json_reply: True where the reply is one JSON object.
        max_tokens: tokens of a reply at first; `most_tokens`, to which it is doubled after an unusable one.
        attempts: replies that are asked for, at most.
        temperature, seed: sampling; the official ones.
    """

    rule: str
    prompt: str
    template_sha256: str
    read: Callable[[str], Score | JudgeRequest | None]
    failed: Score
    system: str = ""
    json_reply: bool = False
    max_tokens: int = 256
    most_tokens: int = 256
    attempts: int = 3
    temperature: float = 0.0
    seed: int | None = None
