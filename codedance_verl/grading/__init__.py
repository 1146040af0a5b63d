"""Is an answer right? A ladder of cheap, certain comparisons (`ladder`), one file per rung."""

from __future__ import annotations

from codedance_verl.grading.ladder import grade

__all__ = ["grade"]
