"""Rollouts on disk: the record of one, its writer and readers, the disk they take, and an index to find one."""
