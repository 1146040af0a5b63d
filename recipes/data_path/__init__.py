"""The whole path of data on a CPU: filter, synthesis, SFT, RL, beside the same without filter and checks."""
