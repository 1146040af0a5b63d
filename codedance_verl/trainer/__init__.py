"""Extensions of verl's trainers for long runs: checkpoints that survive a kill, stops that save, limits on steps."""
