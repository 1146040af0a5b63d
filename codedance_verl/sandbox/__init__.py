"""Host side of the interpreters in which model-written code runs.

`pool.SandboxPool` is what rollouts use; `node.SandboxNode` owns the interpreters of one machine; `config.SandboxConfig`
holds every setting. See docs/sandbox.md.
"""
