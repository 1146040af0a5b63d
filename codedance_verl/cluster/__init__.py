"""Runs on several machines: joining a Ray cluster, what its nodes must share, and what happens when one is lost."""
