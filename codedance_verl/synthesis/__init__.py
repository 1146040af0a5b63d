"""Synthesis of demonstrations: a teacher solves questions in the environment, and what passes all checks is kept."""
