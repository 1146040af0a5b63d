"""Process of a run on its machine: folder, checkpoints, locks, limits, watchdogs, progress."""
