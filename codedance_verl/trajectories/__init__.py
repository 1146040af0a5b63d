"""What a run wrote of its rollouts: which are kept, how much disk they take, and how to find one among many."""
