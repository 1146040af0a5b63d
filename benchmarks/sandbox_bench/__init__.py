"""Speed of sessions and cells, and the cost of a session: `codedance sandbox bench` and benchmarks/sandbox.py.

A closed loop: one asyncio process holds K sessions, and each sends its next cell as soon as the last is answered.
Latency is what the caller sees, queueing included; a call that shows an image is answered when the caller holds it
decoded. What is measured is a `contender.Contender`; `contender.PoolContender` is the pool of this project.
"""
