"""Attacks on the sandbox, as cells that hostile code would run, with what must come of each.

`attack.py` says what an attack is and when it counts as contained, `runner.py` runs them, `in_cell.py` is what they
find in their session; the other modules hold one class of attacks each. `codedance sandbox selfcheck --attacks` and
tests/security run them all.
"""
