"""Faults of rows: raised where a row is read, reported with file and row by whoever reads the file."""

from __future__ import annotations


class BadRow(Exception):
    """What is wrong with a row, in words, without the file and row."""
