"""Models built on the spot."""
