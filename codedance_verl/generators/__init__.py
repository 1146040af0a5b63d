"""Generators of questions with exact answers, each with dials of its difficulty, the same for the same seed."""
