"""verl on a machine without an accelerator, and weight transfer that needs none.

Everything goes through verl's own registries; what upstream gets wrong is mended in `repairs` and `vllm_cpu`,
one function per defect.
"""
