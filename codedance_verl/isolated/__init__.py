"""Isolation of code that may hang, crash or eat memory: formulas and the user's functions run in processes of their own
and are called with JSON."""
