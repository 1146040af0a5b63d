"""The ways to run model-written code that `benchmarks.sandbox` measures beside the pool of this project.

One module a kind; each is loaded only when it is measured, and offers `contender() -> Contender`. A kind that cannot
be had on this machine raises `Unavailable` there, with the reason.
"""
