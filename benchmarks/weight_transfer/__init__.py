"""Cost of sending the weights of a 7 B model from the actor to the rollout through Ray's object store."""
