"""Conversations of messages `{from, value}`: the question without its request for a format, and the final answer.

InternVL's `geoqa+.jsonl` and Geo170K have them. Their wording is that of published examples and of others' readers; no
row of the files was read here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from codedance_verl.data.fields import BadRow
from codedance_verl.types import IMAGE_PLACEHOLDER

MOST_ANSWER_LETTERS = 80
"""Letters of a final answer, at most: what is longer is an explanation, with which no answer can be compared."""

# They ask for another format than the environment does, and would contradict its instructions.
_REQUESTS = re.compile(
    r"First perform reasoning, then finally select the question from the choices in the following format: Answer: xxx\."
    r"|Based on the image, directly select the correct answer for the following question:"
    r"|Answer with the option's letter from the given choices directly\."
    r"|Answer the question using a single word or phrase\."
    r"|请?直接用给定选项中的字母回答。"
    r"|请?用一个单词或短语回答问题。"
)
_HEAD = re.compile(r"\AQuestion:\s{0,8}")
_BEHIND = re.compile(r"\bAnswer\s{0,4}[:\uff1a]|答案\s{0,4}(?:[:\uff1a]|[是为])", re.IGNORECASE)


def question_and_answer(conversation: Any) -> tuple[str, str]:
    """Question and final answer of a conversation of one exchange.

    Raises BadRow: there is another number of messages, one is no text of its speaker, or the reply has no final answer.
    """
    if not isinstance(conversation, list) or len(conversation) != 2:
        count = len(conversation) if isinstance(conversation, list) else "no list of"
        raise BadRow(f"conversations has {count} messages; make a row of each question and its reply")
    asked, reply = (_said(conversation, index, by) for index, by in enumerate(("human", "gpt")))
    return _HEAD.sub("", _REQUESTS.sub("", asked.replace(IMAGE_PLACEHOLDER, "")).strip()), final_answer(reply)


def final_answer(reply: str) -> str:
    """Text behind the last `Answer:` of a reply; all of a reply without one that is short enough to be an answer.

    Raises BadRow where there is none.
    """
    marks = list(_BEHIND.finditer(reply))
    answer = reply[marks[-1].end() if marks else 0 :].strip().removesuffix(".").removesuffix("。").rstrip()
    if not answer or "\n" in answer or len(answer) > MOST_ANSWER_LETTERS:
        raise BadRow(
            f"conversations[1] has no final answer of one line and at most {MOST_ANSWER_LETTERS} letters behind "
            "`Answer:`; add it, or drop the row"
        )
    return answer


def _said(conversation: list[Any], index: int, by: str) -> str:
    message = conversation[index]
    if not isinstance(message, Mapping) or message.get("from") != by or not isinstance(message.get("value"), str):
        raise BadRow(f"conversations[{index}] is no message with from {by} and a text as value")
    return str(message["value"])
