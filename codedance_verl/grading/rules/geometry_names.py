"""Names of segments and angles, the same from either end: AB is BA, angle ABC is angle CBA."""

from __future__ import annotations

import re

from codedance_verl.grading.question_kind import asks_code, asks_written

# A longer text is no name.
MAX_CHARS = 120

_GEOMETRY = re.compile(
    r"\b(?:triangles?|circles?|quadrilateral|polygon|hypotenuse|chords?|diameters?|radius|radii|rectangle|square"
    r"|parallelogram|trapezoid|trapezium|rhombus|kite|pentagon|hexagon|angles?|perpendicular|parallel|tangents?|bisectors?"
    r"|bisects?|midpoint|cube|cuboid|prism|pyramid|(?:line\s+)?segments?)\b|[\N{ANGLE}\N{WHITE UP-POINTING TRIANGLE}]",
    re.IGNORECASE,
)
_ASKS_SEGMENT = re.compile(
    r"\b(?:segments?|lines?|sides?|chords?|hypotenuse|legs?|edges?|diameters?|radius|median|altitude|bisector|tangent|base"
    r"|diagonals?)\b",
    re.IGNORECASE,
)
_ASKS_ANGLE = re.compile(r"\bangles?\b|\N{ANGLE}", re.IGNORECASE)
# directions, correspondences (similar triangles), names that are no points (metro, blood groups, plates)
_DIRECTED = re.compile(
    r"\b(?:rays?|vectors?|arrows?|direct(?:ed|ion)s?|from|towards?|order|path|route|walk\w*|travel\w*|correspond\w*"
    r"|maps?|mapped|image|translat\w*|rotat\w*|metro|subway|bus|train|blood|initials?|plates?|codes?|which\s+triangle"
    r"|what\s+triangle|name\s+(?:of\s+)?the\s+triangle|congruent|similar|arcs?)\b|\\vec|\\overrightarrow|[\u2192\u20d7]",
    re.IGNORECASE,
)
_NAME = r"(?:\N{ANGLE}\s?[A-Z]{3}|(?:angle|segment|line|side|chord|edge)\s[A-Z]{2,3}|[A-Z]{2,3})"
_NAMES = re.compile(rf"(?:the\s+)?{_NAME}(?:\s*(?:,|,?\sand\s)\s*{_NAME}){{0,5}}\.?")
_MARKED = re.compile(r"\\(?:overline|bar)\s*\{\s*([A-Z]{2})\s*\}")
_ANGLE_SIGN = re.compile(r"\\(?:measured)?angle(?![A-Za-z])\s*|\N{MEASURED ANGLE}\s*")
_LETTERS = re.compile(r"\b[A-Z]{2,3}\b")


def in_one_direction(answer: str, ground_truth: str, question: str) -> tuple[str, str] | None:
    """Answer and truth with each name from its alphabetic end, in a question of geometry without a direction."""
    if max(len(answer), len(ground_truth)) > MAX_CHARS or not _GEOMETRY.search(question[:4_000]):
        return None
    if _DIRECTED.search(f"{question[:4_000]} {answer} {ground_truth}") or asks_written(question):
        return None
    # "chord" and "square" are words of codes too (a guitar chord, a square of a board)
    if asks_code(re.sub(r"\b(?:chords?|square)\b", " ", question, flags=re.IGNORECASE)):
        return None
    given, truth = _plain(answer), _plain(ground_truth)
    if not (_NAMES.fullmatch(given) and _NAMES.fullmatch(truth)):
        return None
    # two letters are a segment, three an angle; both sides of one kind, which the question asks for
    lengths = {len(name) for name in _LETTERS.findall(truth)}
    if lengths != {len(name) for name in _LETTERS.findall(given)} or len(lengths) != 1:
        return None
    asked = _ASKS_SEGMENT if lengths == {2} else _ASKS_ANGLE
    return (_turned(given), _turned(truth)) if asked.search(question[:4_000]) else None


def _plain(text: str) -> str:
    text = _MARKED.sub(r"\1", text.strip().strip("$").strip())
    return re.sub(r"^the\s+", "", _ANGLE_SIGN.sub("\N{ANGLE}", text), flags=re.IGNORECASE)


def _turned(text: str) -> str:
    bare = re.sub(r"(?:\N{ANGLE}\s?|(?:angle|segment|line|side|chord|edge)\s)(?=[A-Z])", "", text)
    return _LETTERS.sub(lambda name: min(name[0], name[0][::-1]), bare)
