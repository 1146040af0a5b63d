"""Kinds of the demo's questions that have criteria of their own."""

from __future__ import annotations

RETURNED_IMAGE = ("look",)
"""Kinds that only an image which code returns can answer."""

LOOK_ALIKES = (("look", "look_large"),)
"""Kinds asked in the same words: the first needs code, the second does not."""
