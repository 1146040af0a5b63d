"""We-Math, testmini: 525 composite problems of two or three steps, with a question for each step and for the whole.

Of each composite it counts whether a model knows the steps and can put them together: insufficient knowledge (a step
and the whole wrong), inadequate generalisation (all steps right, the whole wrong), complete mastery, rote memorisation
(the whole right in spite of wrong steps). The score gives a point for mastery and half a point for inadequate
generalisation. Strict, mastery needs all steps; loose, one of them.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from codedance_verl.data.fields import BadRow
from codedance_verl.grading.rules import choice
from codedance_verl.tasks.figures import Figure, Mark, Unit, mean
from codedance_verl.tasks.item import ImageReference, Item, Score
from codedance_verl.tasks.math_rows import completed, image_near
from codedance_verl.tasks.rows import Row, table
from codedance_verl.tasks.task import Task

RULE = "wemath"

LETTERS = "ABCDEFGH"
"""Letters that the authors' rule knows; questions have 3 to 9 options, and right answers go up to E."""

WHOLE = "multi"

_KEY = re.compile(r"([23])steps_([123]|multi)")
_NOT_IN_ANSWERS = str.maketrans("", "", "<>:.")
_INSTRUCTION = "Answer with the letter of the option alone."


def score(item: Item, reply: str) -> Score:
    """Score of the first letter behind the last "Answer" of a reply, or of the reply where that word is not in it."""
    if item.truth is None:
        return Score(None, RULE, reason="the item has no truth")
    letter = letter_of(reply)
    return Score.of(letter == item.truth, RULE, letter or None)


def letter_of(reply: str) -> str:
    """Capital letter A to H that is the first sign but `<>:.` and blanks; empty where that is another sign."""
    behind = reply.rpartition("Answer")[2].strip().translate(_NOT_IN_ANSWERS).strip()
    return behind[0] if behind and behind[0] in LETTERS else ""


# ---- figures ----


@dataclass(frozen=True)
class Composite:
    """Composite problem: whether each step is right, and the whole. A missing or partly right question is wrong."""

    cluster: str
    steps: tuple[bool, ...]
    whole: bool

    def mastered(self, loose: bool) -> bool:
        return self.whole and (any(self.steps) if loose else all(self.steps))

    def memorised(self, loose: bool) -> bool:
        return self.whole and not self.mastered(loose)

    @property
    def not_generalised(self) -> bool:
        return not self.whole and all(self.steps)

    @property
    def not_known(self) -> bool:
        return not self.whole and not all(self.steps)


def composites_of(marks: Sequence[Mark]) -> tuple[Composite, ...]:
    """Composites in the order of their names; a row that cannot be placed is one of its own, with no step right."""
    found: dict[str, dict[str, bool]] = {}
    sizes: dict[str, int] = {}
    for mark in marks:
        key = _KEY.fullmatch(mark.stratum("key"))
        found.setdefault(mark.cluster, {})[key.group(2) if key else WHOLE] = mark.value >= 1
        sizes[mark.cluster] = int(key.group(1)) if key else 1
    return tuple(
        Composite(
            name, tuple(found[name].get(str(step + 1), False) for step in range(sizes[name])), _whole(found[name])
        )
        for name in sorted(found)
    )


def _whole(found: Mapping[str, bool]) -> bool:
    return found.get(WHOLE, False)


def figures(marks: Sequence[Mark]) -> tuple[Figure, ...]:
    """Strict score, as published, loose score, plain accuracy; classes of composites; accuracy of steps and wholes."""
    problems = composites_of(marks)
    return (
        _points(problems, loose=False),
        _points(problems, loose=True),
        mean("accuracy", "mean over all questions", marks),
        *_classes(problems),
        mean("one-step", "mean over the questions of single steps", _of_part(marks, "1", "2", "3")),
        mean("two-step", "mean over the whole problems of two steps", _of_key(marks, "2steps_multi")),
        mean("three-step", "mean over the whole problems of three steps", _of_key(marks, "3steps_multi")),
    )


def _points(problems: Sequence[Composite], loose: bool) -> Figure:
    name = "loose" if loose else "strict"
    units = (Unit(one.cluster, one.mastered(loose) + one.not_generalised / 2) for one in problems)
    return Figure(f"score ({name})", f"{name}: share mastered plus half the share not generalised", tuple(units))


def _classes(problems: Sequence[Composite]) -> tuple[Figure, ...]:
    """Shares of the classes among composites, and of memorisation among wholes that are right."""
    figures = [
        _share(
            "insufficient knowledge",
            "a step and the whole wrong",
            problems,
            [one.not_known for one in problems],
            rises=False,
        ),
        _share(
            "inadequate generalisation",
            "all steps right, the whole wrong",
            problems,
            [one.not_generalised for one in problems],
            rises=False,
        ),
    ]
    for loose, name, needed in ((False, "strict", "all steps"), (True, "loose", "a step")):
        mastered = [one.mastered(loose) for one in problems]
        figures.append(_share(f"complete mastery ({name})", f"{needed} and the whole right", problems, mastered))
        units = (Unit(one.cluster, one.memorised(loose), one.whole) for one in problems)
        definition = f"share without {needed} right among wholes that are right"
        figures.append(Figure(f"rote memorisation ({name})", definition, tuple(units), rises=False))
    return tuple(figures)


def _share(
    name: str, definition: str, problems: Sequence[Composite], member: Sequence[bool], rises: bool = True
) -> Figure:
    units = (Unit(one.cluster, float(is_in)) for one, is_in in zip(problems, member, strict=True))
    return Figure(name, f"share of problems: {definition}", tuple(units), rises)


def _of_part(marks: Sequence[Mark], *wanted: str) -> list[Mark]:
    return [mark for mark in marks if mark.stratum("key").rpartition("_")[2] in wanted]


def _of_key(marks: Sequence[Mark], key: str) -> list[Mark]:
    return [mark for mark in marks if mark.stratum("key") == key]


# ---- layouts ----


def options_in(text: str) -> dict[str, str]:
    """Options of the published text, by their letters from A on: those found in a row.

    They are separated by `;`, by nothing but a blank in some rows, and a `;` was put before a letter and a point
    within options of others: a letter with nothing behind it begins none.
    """
    starts: list[re.Match[str]] = []
    for letter in (*LETTERS, "I", "J"):
        pattern = re.compile(rf"(?:^|[;\s])\s*{letter}\s*[.:\N{{FULLWIDTH FULL STOP}}](?!\s*(?:;|$))")
        found = pattern.search(text, starts[-1].end() if starts else 0)
        if found is None:
            break
        starts.append(found)
    ends = [start.start() for start in starts[1:]] + [len(text)]
    return {
        letter: text[start.end() : end].strip(" ;\t\n")
        for letter, start, end in zip("ABCDEFGHIJ", starts, ends, strict=False)
    }


def _item(row: Row, image: ImageReference, options: dict[str, str]) -> Item:
    name, key = row.optional("ID"), row.optional("key")
    placed = bool(name and _KEY.fullmatch(key))
    known = Item(
        id=f"{name}:{key.rpartition('_')[2]}" if placed else "",
        question="",
        images=(image,),
        truth=None,
        cluster=name if placed else "",
        strata={"key": key} if placed else {},
    )
    return completed(known, row, functools.partial(_complete, row, options))


def _complete(row: Row, options: dict[str, str], known: Item) -> Item:
    answer = row.text("answer").strip()
    if not known.strata:
        raise BadRow("its ID and key name no step of a problem")
    if answer not in options:
        raise BadRow(f"its answer is {answer[:20]!r}, and it has the options {', '.join(options) or 'none'}")
    question = row.text("question").strip()
    lines = (f"{letter}. {text}" for letter, text in options.items())
    return replace(
        known,
        question="\n".join((question, *lines, _INSTRUCTION)),
        truth=answer,
        choices=tuple(options.values()),
        style=choice.RULE,
        facts={"question": question, "concept": row.optional("knowledge concept")},
    )


def _parquet(row: Row) -> Item:
    return _item(row, row.image("image_path"), options_in(row.optional("option")))


def _release(row: Row) -> Item:
    return _item(row, image_near(row, "image_path"), options_in(row.optional("option")))


def _tsv(row: Row) -> Item:
    return _item(row, row.image(), {letter: text for letter in LETTERS if (text := row.optional(letter))})


_COLUMNS = ("ID", "key", "question", "answer")

WEMATH = Task(
    name=RULE,
    title="We-Math, testmini",
    source="We-Math/We-Math",
    revision="main",
    expected=1_740,
    layouts=(
        table("parquet of We-Math/We-Math", "**/*.parquet", (*_COLUMNS, "option", "image_path"), _parquet),
        table(
            "data/testmini.json of We-Math/We-Math with images",
            "**/testmini.json",
            (*_COLUMNS, "option", "image_path"),
            _release,
        ),
        table("WeMath.tsv of VLMEvalKit", "**/*WeMath*.tsv", (*_COLUMNS, "image", "A", "B"), _tsv),
    ),
    score=score,
    rule='letter behind the last "Answer" of a reply, by We-Math a57a0e8; strict and loose scores of 525 problems',
    figures=figures,
    hub_files=("**/testmini*.parquet",),
)

TASKS = (WEMATH,)
