"""Watch for the opening of a call in a turn that is still being sampled, so that its sandbox session can be opened.

A server of the loop that is given a `CallWatch` reports when it is seen. One that cannot, or an opening that two
requests share, reports nothing: the session is then opened when the call is run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class CallWatch:
    """Watch of one turn.

    Attributes:
        tag: text with which every call begins (`TurnFormat.call_prefix`). In a thought it may open none.
        seen: to be called once the tag has been sampled, in the event loop of the trajectory; harmless to call again.
    """

    tag: str
    seen: Callable[[], None]


class TagSearch:
    """Search for a tag in a text that grows; each character is looked at once, however the tag is spread over parts."""

    def __init__(self, tag: str) -> None:
        self._tag = tag
        self._looked_at = 0
        self.found = False

    def grown(self, text: str) -> bool:
        """Returns whether the tag stands in the text, which begins with the text of the last call."""
        if not self.found:
            self.found = text.find(self._tag, max(self._looked_at - len(self._tag) + 1, 0)) >= 0
            self._looked_at = len(text)
        return self.found
