"""A yes or a no with its reason behind it ("No, the sum (12 + 15 = 27) is smaller than 40")."""

from __future__ import annotations

import re

from codedance_verl.grading.rules.normalise import word_set, words_of
from codedance_verl.grading.rules.working import equations_hold

# A longer reason is none: the rules below hold for one clause.
MAX_CHARS = 200

# A blank alone separates only before "because" or "since": "no 5" and "true north" are no verdicts.
_EXPLAINED = re.compile(
    r"(?P<verdict>yes|no|true|false)"
    r"(?P<sign>\s*[,.;:\N{EM DASH}\N{EN DASH}]\s*|\s+-\s+|\s+(?=(?:because|since)\b))(?P<reason>[^\W_(].*)",
    re.IGNORECASE | re.DOTALL,
)
# Words that take a verdict back, weaken it or address the grader: with any of them the reason is not read.
_TURNS = word_set("""
    yes no true false or but maybe wrong right incorrect correct correctly actually however although though yet
    except unless perhaps possibly probably likely unlikely sure unsure uncertain unclear unknown mistaken mistake
    wait rather instead kidding joking joke otherwise if would could might may should depend depending both
    neither nor answer cannot hmm still nevertheless nonetheless despite guess think assume opposite contrary
    scratch sorry correction question believe seem appear ok
""")
_DENIALS = word_set("""
    not isn aren wasn weren don doesn didn hasn haven hadn never without lack missing absent none nobody nothing
    fail impossible unable hardly only zero
""")
# Without one of these a text is a list of words and no reason.
_VERBS = word_set("is are was were has have had does do did can show exceed isn aren wasn weren doesn because since")
# Words without weight: they may be added or left out.
_SMALL_WORDS = word_set("""
    a an the it its this that these those there they he she is are was were do does did has have had can in on of
    to at so be by for with and as than which while whereas value equal s t
""")
_PRONOUNS = frozenset({"it", "they", "he", "she", "there", "this", "because", "since"})
_MORE = word_set("greater larger bigger more higher taller longer above over exceed older heavier faster wider later")
_LESS = word_set("smaller less fewer lower shorter below under younger lighter slower narrower earlier lesser littler")
_MOST = word_set("greatest largest biggest most highest tallest longest oldest heaviest fastest widest")
_LEAST = word_set("smallest least fewest lowest shortest youngest lightest slowest narrowest")

_CONTRASTS = ((_MORE, _LESS), (_LESS, _MORE), (_MOST, _LEAST), (_LEAST, _MOST))
# Pairs of opposites, one behind the other. A reason with the other word of a pair speaks against the question.
_LISTED = words_of("""
    open closed  left right  before after  inside outside  same different  even odd  on off  day night  male female
    man woman  boy girl  empty full  black white  hot cold  young old  wet dry  up down  front back  top bottom
    east west  north south  first last  positive negative  indoor outdoor  indoors outdoors  standing sitting
    awake asleep  alive dead  sunny rainy  clean dirty  light dark  high low  tall short  long short  big small
    large small  increasing decreasing  increase decrease  increased decreased  rising falling  rose fell
    visible hidden
""")
_OPPOSITE = dict(zip(_LISTED[::2], _LISTED[1::2], strict=True)) | dict(zip(_LISTED[1::2], _LISTED[::2], strict=True))


def parse_explained(text: str, question: str) -> bool | None:
    """Reads a verdict, a comma, full stop or dash (or "because"), and a reason that does not take it back.

    The reason of a yes may add numbers and words of comparison to those of the question, or begin with "because"; that
    of a no must say something else than the question does.
    """
    found = _EXPLAINED.fullmatch(text)
    if found is None or len(found.group("reason")) > MAX_CHARS or not question:
        return None
    reason = found.group("reason")
    if ("." in found.group("sign") and reason[:1].isdigit()) or "?" in reason or not equations_hold(reason):
        return None  # "No. 5 is ..." is a number
    words, asked = words_of(reason), frozenset(words_of(question[:4_000]))
    if len(words) < 3 or _TURNS & set(words) or not _VERBS & set(words):
        return None
    # the reason must be about what was asked: a word of weight of the question, or a pronoun for it
    if words[0] not in _PRONOUNS and not _weighty(words) & asked:
        return None
    # a bound that is kept or broken must agree with the verdict ("Is it above 40?", "No, it is 39")
    value = found.group("verdict").casefold() in ("yes", "true")
    fulfilled = _fulfils_bound(reason, question)
    if fulfilled is not None and (fulfilled is not value or _says_opposite(words, asked)):
        return None
    if value:
        return True if _may_support(words, asked) and not swaps_sides(reason, question) else None
    return False if fulfilled is False or _may_deny(words, asked) else None


def repeats_all(reason: str, question: str) -> bool:
    """True if a reason repeats all that a question asks, without a denial: it cannot explain a no."""
    words, asked = words_of(reason), frozenset(words_of(question[:4_000]))
    weighty = _weighty(tuple(asked))
    return bool(weighty) and weighty <= {*words} and not _DENIALS & {*words} and not swaps_sides(reason, question)


def swaps_sides(reason: str, question: str) -> bool:
    """True if what stands behind "than" is something else than in the question ("more cats than dogs")."""
    sides = [re.split(r"\bthan\b", text[:4_000], maxsplit=1, flags=re.IGNORECASE) for text in (reason, question)]
    if any(len(side) != 2 for side in sides):
        return False
    behind, asked = (_weighty(words_of(side[1])) for side in sides)
    return not behind <= asked


def _fulfils_bound(reason: str, question: str) -> bool | None:
    """True if the one number of a reason is above or below the one of the question, as asked; None without these."""
    given, bounds = (re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.]*\d)", text) for text in (reason, question[:4_000]))
    asked = frozenset(words_of(question[:4_000]))
    more, less = bool(_MORE & asked), bool(_LESS & asked)
    if len(given) != 1 or len(bounds) != 1 or more is less or given == bounds:
        return None
    value, bound = float(given[0]), float(bounds[0])
    return value > bound if more else value < bound


def _may_support(words: tuple[str, ...], asked: frozenset[str]) -> bool:
    """True if a reason can be that of a yes."""
    if _DENIALS & ({*words} | asked) or _says_opposite(words, asked):
        return False
    direction = next((group for group in (_MORE, _LESS) if group & asked), frozenset())
    return words[0] in ("because", "since") or _weighty(words) <= asked | direction


def _may_deny(words: tuple[str, ...], asked: frozenset[str]) -> bool:
    """True if a reason can be that of a no: a denial, the opposite, or something else than what is asked about."""
    if _DENIALS & asked:
        return False
    if _says_opposite(words, asked):
        return not _says_same(words, asked)
    if _DENIALS & set(words):
        return True
    return not _says_same(words, asked) and not _weighty(tuple(asked)) <= set(words) and bool(_weighty(words) - asked)


def _says_opposite(words: tuple[str, ...], asked: frozenset[str]) -> bool:
    given = frozenset(words)
    turned = any(one & asked and not other & asked and other & given for one, other in _CONTRASTS)
    return turned or any(_OPPOSITE[word] in given - asked for word in asked & _OPPOSITE.keys())


def _says_same(words: tuple[str, ...], asked: frozenset[str]) -> bool:
    """True if a reason compares in the direction that the question asks about."""
    return any(group & asked and group & set(words) for group in (_MORE, _LESS))


def _weighty(words: tuple[str, ...]) -> frozenset[str]:
    return frozenset(words) - _SMALL_WORDS
