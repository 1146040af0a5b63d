"""A run as a process on a machine: its folder, its limits, its progress."""
