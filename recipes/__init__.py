"""Experiments: one folder each, with a README that says what it reproduces and how long it takes."""
