"""CPU time and memory of a session, two checkouts side by side in one run."""
