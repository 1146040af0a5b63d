"""Runs on several machines: connection to a Ray cluster, shared storage, placement, and the loss of a node."""
