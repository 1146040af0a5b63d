"""vLLM's command line (`vllm serve …`), which also works where only its CPU build is installed.

A module of its own, because the processes that vLLM spawns import the main module again, and need the name too.
"""

from __future__ import annotations

from codedance_verl.verl_compat.vllm_cpu import answer_to_the_name_vllm

answer_to_the_name_vllm()

if __name__ == "__main__":
    from vllm.entrypoints.cli.main import main

    main()
