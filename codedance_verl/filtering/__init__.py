"""Weak-to-strong filter: questions by what a weak and a strong model make of them, `codedance data filter`."""
