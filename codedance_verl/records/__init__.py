"""Records of an evaluation by item: a key that says what they hold for, files that survive a kill, shared work."""
