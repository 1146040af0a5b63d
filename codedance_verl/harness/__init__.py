"""Evaluation harness (`codedance eval`): benchmarks, asked of any model, with figures that can be defended."""
