"""Hold-out study: a category of operations is left out of the demonstrations; does RL bring it back?"""
