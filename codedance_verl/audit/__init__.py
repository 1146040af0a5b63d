"""Audit of training sets: evaluation images and questions in them, lengths against budgets, answers, balance."""
