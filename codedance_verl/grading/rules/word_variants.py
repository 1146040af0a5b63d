"""Spellings of one word: without its accents ("Sao Paulo"), British or American ("grey", "gray")."""

from __future__ import annotations

import re
import unicodedata

from codedance_verl.grading.question_kind import asks_written

# A longer ground truth is compared as it stands.
MAX_CHARS = 300

# letters that Unicode does not decompose into a letter and an accent
_UNDIVIDED = str.maketrans(
    {"ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "đ": "d", "Đ": "D", "ß": "ss", "æ": "ae", "œ": "oe"}
)
_ASKS_LANGUAGE = re.compile(r"\b(?:translat\w*|languages?|british|american|spell\w*|accents?|diacritics?)\b", re.I)
_ASKS_NAME = re.compile(r"\b(?:names?|named|surname|who|whose|called|titles?|brand|company|author|street)\b", re.I)
# a closed table: a rule for endings would make other words alike ("four", "for")
_OUR_WORDS = """
    colour flavour harbour neighbour labour honour humour rumour favour favourite armour vapour odour savour behaviour
    parlour tumour vigour endeavour
"""
_PAIRS = """
    grey gray  centre center  metre meter  litre liter  theatre theater  fibre fiber  calibre caliber  sabre saber
    sombre somber  spectre specter  lustre luster  kilometre kilometer  centimetre centimeter  millimetre millimeter
    millilitre milliliter  aluminium aluminum  aeroplane airplane  tyre tire  pyjama pajama  jewellery jewelry
    mould mold  plough plow  moustache mustache  doughnut donut  yoghurt yogurt  catalogue catalog  dialogue dialog
    analogue analog  cosy cozy  defence defense  offence offense  licence license  traveller traveler
    travelling traveling  cancelled canceled  labelled labeled  modelling modeling  marvellous marvelous
    woollen woolen  artefact artifact  sulphur sulfur  sceptic skeptic  programme program  maths math
    enrolment enrollment  skilful skillful  fulfil fulfill  organise organize  organisation organization
    recognise recognize  analyse analyze  realise realize  paediatric pediatric  anaemia anemia  leukaemia leukemia
    anaesthesia anesthesia  haemoglobin hemoglobin  oesophagus esophagus  foetus fetus  oestrogen estrogen
    encyclopaedia encyclopedia  orthopaedic orthopedic  diarrhoea diarrhea  manoeuvre maneuver  archaeology archeology
"""


def _table() -> dict[str, str]:
    words = _PAIRS.split()
    pairs = [*zip(words[::2], words[1::2], strict=True)]
    pairs += [(word, word.replace("our", "or")) for word in _OUR_WORDS.split()]
    return {british + ending: american + ending for british, american in pairs for ending in ("", "s", "ed", "ing")}


_AMERICAN = _table()


def without_accents(answer: str, ground_truth: str, question: str) -> str | None:
    """Ground truth without accents, for an answer that has none; None where the spelling is asked for."""
    if not answer.isascii() or ground_truth.isascii() or len(ground_truth) > MAX_CHARS:
        return None
    if asks_written(question) or _ASKS_LANGUAGE.search(question[:4_000]):
        return None
    parts = unicodedata.normalize("NFKD", ground_truth.translate(_UNDIVIDED))
    folded = "".join(char for char in parts if not unicodedata.combining(char))
    # only letters may change: "5²" is not "52"
    same = len(re.findall(r"[\W\d_]", ground_truth)) == len(re.findall(r"[\W\d_]", folded))
    return folded if folded.isascii() and same and re.search("[A-Za-z]{3}", folded) else None


def in_american(answer: str, ground_truth: str, question: str) -> tuple[str, str] | None:
    """Answer and truth in American spelling, if that changes one; None for names, and where spelling is asked for."""
    if len(ground_truth) > MAX_CHARS or asks_written(question):
        return None
    if _ASKS_LANGUAGE.search(question[:4_000]) or _ASKS_NAME.search(question[:4_000]):
        return None
    if re.search(r"(?<=\S)\s+[A-Z]", ground_truth.strip()):
        return None  # "Lincoln Center" is a name
    changed = _americanised(answer), _americanised(ground_truth)
    return changed if changed != (answer, ground_truth) else None


def _americanised(text: str) -> str:
    return re.sub(r"[A-Za-z]+", lambda word: _AMERICAN.get(word[0].casefold(), word[0]), text)
