"""Statistics of an evaluation: intervals by question, cluster and seed, bounds, power, and paired comparison."""
