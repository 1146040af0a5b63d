"""Rules that compare an answer with the truth, one kind of answer a module."""
