"""The multi-turn environment: prompts, parsing of what the model wrote, observations, and the verl agent loop."""
