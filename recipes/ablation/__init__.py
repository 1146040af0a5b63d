"""The rewards and the ways of sampling beside one another on the CPU demo, with equal budgets."""
