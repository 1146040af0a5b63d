"""Measurements that are run by hand, each a module with a `main`; see README.md."""
