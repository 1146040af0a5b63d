"""Text of models and their code, made safe to show.

A terminal executes escape sequences, which can write the clipboard or change the screen; a page reorders text around
direction marks.
"""

from __future__ import annotations

import re

# Control characters but tab and newline, zero-width and direction marks (they reorder what stands around them, or hide
# it), the byte order mark, and halves of surrogate pairs, which no encoding takes.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")


def visible(text: str) -> str:
    """Replaces each unprintable character by its code point, as in ⟨U+202E⟩."""
    return _UNPRINTABLE.sub(lambda found: f"⟨U+{ord(found.group()):04X}⟩", text.replace("\r\n", "\n"))
