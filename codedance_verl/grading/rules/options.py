"""Options of a multiple choice question: their letters, their texts, and how an answer names one of them.

Letters go from A to H, and further where the question lists more options.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from codedance_verl.grading.rules.latex import to_plain
from codedance_verl.grading.rules.normalise import ascii_digits, normalise, strip_wrapping

# The last letter that is an option without being listed; later ones (I, X) may be numerals or names.
LAST_LETTER = "H"

# Options are read from this many of the last characters of a question.
MAX_QUESTION_CHARS = 20_000

_RUN_OF_LETTERS = re.compile(r"[A-H]{2,8}")
_LEAD = re.compile(
    r"(?:the\s+)?(?:correct\s+|right\s+|final\s+)?(?:(?:option|choice|letter|answer)s?(?:\s+is)?\s*[:\uff1a]?|"
    r"(?:正确)?(?:答案|选项|选择|选)(?:是|为|选)?\s*[:\uff1a]?)\s*(?=[\[(<{]?[A-Za-z](?![^\W_]))",
    re.IGNORECASE,
)
_EMPHASIS = re.compile(r"(\*{1,3}|__)(?=\S)([^*_]+)(?<=\S)\1")
_QUOTES = tuple("\"'`\u201c\u2018")
_LETTER_LAST = re.compile(r"(?P<text>\S.*?)\s*[(\[](?P<letter>[A-Za-z])[)\]]", re.DOTALL)
# forms in which a letter is an option only with the very text of it: "a dog" has an article
_WEAK = re.compile(
    r"(?P<letter>[A-Za-z])(?:\s+-{1,2}\s*|\s*\N{EM DASH}\s*|-\s+|,\s*|\s+|[.):、。\uff0e]\s*)(?P<text>\S.*)", re.DOTALL
)
_WEAK_BRACKETED = re.compile(r"[(\[<{](?P<letter>[A-Za-z])[)\]>}]\s*[-.:,\N{EM DASH}]*\s*(?P<text>\S.*)", re.DOTALL)
# What stands before the text of an option: at the beginning of its line, or else anywhere.
_LETTER_MARK = r"(?:[(\[]{0}[)\]]|(?:\*\*)?{0}(?:[.):]|[、\uff0e\uff1a]|\s[-\N{{EN DASH}}]\s))(?:\*\*)?[.:]?\s*(?=\S)"
_MARKS = (rf"^[ \t>*-]*{_LETTER_MARK}", rf"(?:^|(?<=[\s(\[*>;,、。\uff1f?])){_LETTER_MARK}")
_LOWER_MARK = r"(?:^|(?<=\s))(?:\({0}\)|^{0}[.)])\s*(?=\S)"


@dataclass(frozen=True)
class Choice:
    """An option: its upper-case letter, and its normalised text where it was given."""

    letter: str
    text: str = ""


@dataclass(frozen=True)
class _Patterns:
    """Patterns of an answer where the options go up to one letter."""

    letter: re.Pattern[str]
    letter_and_text: re.Pattern[str]
    second_letter: re.Pattern[str]
    letters: re.Pattern[str]


@lru_cache(maxsize=26)
def _patterns(last: str) -> _Patterns:
    one = f"[A-{last}]"
    bare = rf"(?<!\S)(?:[B-{last}]|A(?!\s+[a-z]))(?=[\s,;.]|$)(?!\s*[-=<>+*/^])"  # no article, and not in a formula
    return _Patterns(
        letter=re.compile(rf"[(\[<{{]?([A-{last}a-{last.lower()}])[)\]>}}]?"),
        letter_and_text=re.compile(
            rf"(?:[(\[]({one})[)\]]\.?:?|({one})[.):、\uff0e])(?!\d)\s*(?!(?:or|and|not|nor|but|unless)\b)(\S.*)",
            re.DOTALL,
        ),
        second_letter=re.compile(
            rf"[(\[<{{]{one}[)\]>}}]|\b{one}[.):]|(?:\b(?:or|and|not|but|unless|maybe|then|perhaps|else)\b|[/,;&|])\s*\(?{one}\b"
            rf"|\A{bare}|{bare}.*{bare}",
            re.DOTALL,
        ),
        letters=re.compile(rf"\(?{one}\)?(?:(?:\s*[,;&/、]\s*(?:and\s+)?|\s+and\s+|和)\(?{one}\)?)+"),
    )


def parse_choice(text: str, options: dict[str, str] | None = None) -> Choice | None:
    """Reads one option; None for anything else, also for an answer that names several.

    Where the options are known, also "B - dog", "b. dog" and "dog (B)", if that is the text of the option.
    """
    known = options or {}
    found = _patterns(_last(known))
    plain = _plain(text)
    if alone := found.letter.fullmatch(strip_wrapping(plain)):
        return Choice(alone.group(1).upper())
    if (choice := _with_its_text(plain, known)) is not None:
        return choice
    both = found.letter_and_text.fullmatch(plain)
    if both is None or found.letter.fullmatch(strip_wrapping(both[3])) or found.second_letter.search(both[3]):
        return None
    return Choice(both[1] or both[2], normalise(both[3]))


def parse_letters(text: str, options: dict[str, str] | None = None) -> frozenset[str] | None:
    """Reads several options by their letters ("A, C", "A and C", "AC" in alphabetical order); else None."""
    bare = strip_wrapping(_plain(text))
    if _patterns(_last(options or {})).letters.fullmatch(bare):
        return frozenset(re.findall(r"[A-Z]", bare))
    if is_run_of_letters(bare) and "".join(sorted(set(bare))) == bare:
        return frozenset(bare)
    return None


def is_run_of_letters(text: str) -> bool:
    """True if a text is several letters of options in a row ("ABD")."""
    return _RUN_OF_LETTERS.fullmatch(text.strip()) is not None


def text_behind(letter: str, answer: str, options: dict[str, str]) -> str:
    """Normalised text behind that letter, which may name others ("B. A and C"); empty for anything else."""
    found = _patterns(_last(options)).letter_and_text.fullmatch(_plain(answer))
    return normalise(found.group(3)) if found and letter in found.group(1, 2) else ""


def options_of(question: str) -> dict[str, str]:
    """Texts of the options that a question lists, by letter; empty where it lists none or the same twice."""
    return dict(_options_of(question[-MAX_QUESTION_CHARS:]))


@lru_cache(maxsize=256)
def _options_of(question: str) -> tuple[tuple[str, str], ...]:
    # lines first: within a line "(A)" may be a name, and small letters may be those of a formula
    for form, first in ((_MARKS[0], "A"), (_MARKS[1], "A"), (_LOWER_MARK, "a")):
        marks = _marks(question, form, first)
        if len(marks) > 1:
            break
    else:
        return ()
    ends = [mark.start() for mark in marks[1:]] + [len(question)]
    behind = [question[mark.end() : end] for mark, end in zip(marks, ends, strict=True)]
    texts = [text.strip().rstrip("(;,").strip() for text in behind]
    texts[-1] = texts[-1].split("\n")[0].strip()
    if not all(texts) or len({normalise(text) for text in texts}) < len(texts):
        return ()
    return tuple((chr(ord("A") + place), text) for place, text in enumerate(texts))


def _marks(question: str, form: str, first: str) -> list[re.Match[str]]:
    """Marks of the options in their order, as far as their letters follow each other."""
    marks: list[re.Match[str]] = []
    for code in range(ord(first), ord(first) + 26):  # as far as each stands behind the one before
        pattern = re.compile(form.format(re.escape(chr(code))), re.MULTILINE)
        if (mark := pattern.search(question, marks[-1].end() if marks else 0)) is None:
            break
        marks.append(mark)
    return marks


def _plain(text: str) -> str:
    """Text without LaTeX, emphasis and what announces an option."""
    plain = _EMPHASIS.sub(r"\2", to_plain(ascii_digits(text))).strip()
    plain = strip_wrapping(plain) if plain[:1] in _QUOTES else plain
    plain = plain[found.end() :].strip() if (found := _LEAD.match(plain)) else plain
    return re.sub(r"^([A-Z])\s*(?:is\s+(?:the\s+)?(?:correct|right)(?:\s+(?:answer|option|choice))?)\.?$", r"\1", plain)


def _last(options: dict[str, str]) -> str:
    return max([LAST_LETTER, *options])


def _with_its_text(plain: str, options: dict[str, str]) -> Choice | None:
    """A letter and the very text of its option, in forms that are no option without it."""
    for form in (_WEAK, _WEAK_BRACKETED, _LETTER_LAST):
        if (found := form.fullmatch(plain.rstrip("."))) is not None:
            letter, text = found.group("letter").upper(), normalise(found.group("text"))
            if text and text == normalise(options.get(letter, "")):
                return Choice(letter, text)
    return None
