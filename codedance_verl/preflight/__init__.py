"""Checks before a run starts (`checks`), and of the machine (`doctor`), which imports nothing that may be missing."""
