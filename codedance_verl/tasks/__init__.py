"""Benchmarks: converters of their published files into items, their official scoring rules and figures."""
