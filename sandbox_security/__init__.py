"""Attacks on the sandbox and the self-check that runs them."""
