"""Multi-turn environment, free of verl, torch and Ray."""
