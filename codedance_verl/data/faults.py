"""Faults of rows, raised where a row is read and reported with its file and number."""

from __future__ import annotations


class BadRow(Exception):
    """Fault of a row, in words, without its file and number."""
