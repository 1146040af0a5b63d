"""Host side of the sandbox alone: calls a second and CPU time a call, with interpreters that answer at once.

Run with `python -m benchmarks.sandbox_host`; see README.md.
"""
