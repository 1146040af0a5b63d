"""Extensions of verl: machines without an accelerator, and a weight transfer that needs none.

All of it goes through verl's own registries; `repairs` and `vllm_cpu` repair defects of upstream, one function each.
"""
