"""The multi-turn environment, free of verl, torch and Ray."""
