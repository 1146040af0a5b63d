"""The CPU demo: a tiny model from scratch, SFT, RL with two seeds, evaluations, a report."""
