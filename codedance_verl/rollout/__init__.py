"""Rollouts under verl: data sets, agent loop, workers, scores of groups."""
