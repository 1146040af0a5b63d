"""Rows of `capability_table`: rollouts, agents, rewards."""

from __future__ import annotations

from codedance_verl.preflight.capabilities import Capability
from codedance_verl.preflight.capability_words import NO_EFFECT, NOT_RUN, REFUSED, ROLLOUT, ROOT, WORKS, under

ROLLOUTS = (
    Capability(
        "Rollouts",
        "vLLM: memory, lengths, parallelism, caches, graphs",
        WORKS,
        "",
        (ROLLOUT, f"{ROOT}.hybrid_engine"),
        (f"{ROLLOUT}.gpu_memory_utilization=0.4", f"{ROLLOUT}.enforce_eager=true"),
    ),
    Capability(
        "Rollouts",
        "any other argument of vLLM",
        WORKS,
        "by its name in vLLM; a null removes it",
        (f"{ROLLOUT}.engine_kwargs.vllm",),
        ("+actor_rollout_ref.rollout.engine_kwargs.vllm.max_logprobs=5",),
        open=True,
    ),
    Capability(
        "Rollouts",
        "SGLang, TensorRT-LLM, Hugging Face",
        REFUSED,
        "actor_rollout_ref.rollout.name is vllm",
        (
            f"{ROLLOUT}.engine_kwargs.sglang",
            f"{ROLLOUT}.engine_kwargs.trtllm",
            f"{ROLLOUT}.server",
            f"{ROLLOUT}.sglang_engine_mode",
            f"{ROLLOUT}.moe_tensor_parallel_size",
        ),
        (
            f"{ROLLOUT}.name=sglang",
            f"{ROLLOUT}.name=hf",
            "+actor_rollout_ref.rollout.engine_kwargs.sglang.attention_backend=fa3",
        ),
    ),
    Capability(
        "Rollouts",
        "sampling: temperature, top_p, top_k, n",
        WORKS,
        "with `top_p` or `top_k` vLLM's log-probs are those of what is left, training's are not: a warning says so",
        under((ROLLOUT,), "temperature", "top_p", "top_k", "n", "val_kwargs"),
        (f"{ROLLOUT}.n=4", f"{ROLLOUT}.val_kwargs.temperature=0", f"{ROLLOUT}.top_p=0.9"),
    ),
    Capability(
        "Rollouts",
        "`do_sample`",
        NO_EFFECT,
        "greedy is temperature=0; in validation actor_rollout_ref.rollout.val_kwargs.temperature=0",
        (f"{ROLLOUT}.do_sample", f"{ROLLOUT}.val_kwargs.do_sample"),
        (f"{ROLLOUT}.val_kwargs.do_sample=false", f"{ROLLOUT}.do_sample=false"),
    ),
    # `agent_loop_tq.py` puts 1.0 into every request, before the server would fill in its own
    Capability(
        "Rollouts",
        "repetition penalty",
        NO_EFFECT,
        "verl's rollout workers always ask for 1.0",
        (f"{ROLLOUT}.repetition_penalty",),
        ("+actor_rollout_ref.rollout.repetition_penalty=1.1",),
    ),
    Capability(
        "Rollouts",
        "lengths, as verl passes them on",
        NO_EFFECT,
        "set data.max_prompt_length and data.max_response_length",
        (f"{ROLLOUT}.prompt_length", f"{ROLLOUT}.response_length"),
        (f"{ROLLOUT}.response_length=512",),
    ),
    Capability(
        "Rollouts",
        "pipeline, data and expert parallelism of an engine, disaggregation, routing replay",
        REFUSED,
        "there is an engine for each actor_rollout_ref.rollout.tensor_model_parallel_size devices",
        (
            *under((ROLLOUT,), "pipeline_model_parallel_size", "data_parallel_size", "expert_parallel_size"),
            *under((ROLLOUT,), "disaggregation", "enable_rollout_routing_replay", "moe_load_balance_metrics_interval"),
        ),
        (f"{ROLLOUT}.pipeline_model_parallel_size=2", f"{ROLLOUT}.disaggregation.enabled=true"),
    ),
    Capability(
        "Rollouts",
        "quantised rollouts (FP8)",
        REFUSED,
        "verl 0.9.1 does not find the layers of a vision-language model for it",
        (f"{ROLLOUT}.quantization", f"{ROLLOUT}.quantization_config_file"),
        (f"{ROLLOUT}.quantization=fp8",),
    ),
    Capability(
        "Rollouts",
        "adapters sent to vLLM layer by layer",
        REFUSED,
        "they are merged into the weights before these are sent",
        (f"{ROLLOUT}.layered_summon",),
        (f"{ROLLOUT}.layered_summon=true",),
    ),
    Capability(
        "Rollouts",
        "log-probs of sampled tokens",
        REFUSED,
        "rollouts need them",
        (f"{ROLLOUT}.calculate_log_probs",),
        (f"{ROLLOUT}.calculate_log_probs=false",),
    ),
    Capability(
        "Rollouts",
        "determinism of vLLM alone",
        REFUSED,
        "set deterministic=true, which covers the whole run",
        (f"{ROLLOUT}.full_determinism",),
        (f"{ROLLOUT}.full_determinism=true",),
    ),
    Capability(
        "Rollouts",
        "mode, oversampling and wake-up of SGLang, tokenizer of the server, timeout of NCCL",
        NO_EFFECT,
        "verl's V1 trainer with vLLM does not read it; sampling.oversample draws more rollouts than are kept",
        (
            *under(
                (ROLLOUT,), "mode", "over_sample_rate", "multi_stage_wake_up", "skip_tokenizer_init", "layer_name_map"
            ),
            *under((ROLLOUT,), "standalone_gpu_memory_utilization", "checkpoint_manager_class", "custom"),
            f"{ROOT}.nccl_timeout",
        ),
        (f"{ROLLOUT}.over_sample_rate=0.2", f"{ROLLOUT}.mode=sync"),
    ),
    Capability(
        "Rollouts",
        "transfer of weights",
        WORKS,
        "`ray_object_store` and `nccl`, with `trainer=separate_async` alone; other engines of verl's are refused",
        (f"{ROLLOUT}.checkpoint_engine",),
        (f"{ROLLOUT}.checkpoint_engine.update_weights_bucket_megabytes=128",),
    ),
    Capability(
        "Rollouts",
        "arguments of the transfer",
        WORKS,
        "`verify` and `dtype` of `ray_object_store`; those of `nccl` go to verl as they are",
        (f"{ROLLOUT}.checkpoint_engine.engine_kwargs",),
        (),
        open=True,
    ),
    Capability(
        "Rollouts",
        "Prometheus, router of verl",
        WORKS,
        f"{NOT_RUN}; docs/metrics.md has the metrics of this project",
        (f"{ROLLOUT}.prometheus", f"{ROLLOUT}.router_config_path"),
        (f"{ROLLOUT}.prometheus.enable=true",),
    ),
)


AGENTS = (
    Capability(
        "Agents",
        "multi-turn, its limits and its formats",
        NO_EFFECT,
        "every rollout is multi-turn: environment.max_turns, environment.max_observation_chars and environment.format "
        "are what counts",
        (f"{ROLLOUT}.multi_turn",),
        (
            f"{ROLLOUT}.multi_turn.enable=true",
            f"{ROLLOUT}.multi_turn.max_assistant_turns=3",
        ),
    ),
    Capability(
        "Agents",
        "tools, function tools, MCP",
        NO_EFFECT,
        "the one tool is the Python sandbox (docs/environment.md)",
        (
            f"{ROLLOUT}.multi_turn.tool_config_path",
            f"{ROLLOUT}.multi_turn.function_tool_path",
            "data.tool_config_path",
            "data.function_tool_path",
        ),
        (f"{ROLLOUT}.multi_turn.tool_config_path=tools.yaml", "data.tool_config_path=tools.yaml"),
    ),
    Capability(
        "Agents",
        "rollout workers",
        WORKS,
        "",
        (f"{ROLLOUT}.agent.num_workers",),
        (f"{ROLLOUT}.agent.num_workers=2",),
    ),
    Capability(
        "Agents",
        "other agent loops and servers",
        REFUSED,
        "groups are scored by the agent loop of this project; environment.* and reward_preset.* set what it does",
        (f"{ROLLOUT}.agent",),
        (
            f"{ROLLOUT}.agent.default_agent_loop=tool_agent",
            f"{ROLLOUT}.agent.agent_loop_config_path=/nope.yaml",
        ),
    ),
    # `verl_names` checks that the class is derived from ours, so that the row has no example
    Capability(
        "Agents",
        "manager of the agent loop",
        WORKS,
        "a class derived from `codedance_verl.rollout.worker.CodeDanceAgentLoopManager`, which scores groups",
        (f"{ROLLOUT}.agent.agent_loop_manager_class",),
        (),
    ),
    Capability(
        "Agents",
        "traces of rollouts (Weave, MLflow)",
        NO_EFFECT,
        "verl's V1 trainer traces none; environment.save_trajectories writes them to <run_dir>/trajectories",
        (f"{ROLLOUT}.trace",),
        (f"{ROLLOUT}.trace.backend=weave",),
    ),
)


REWARDS = (
    Capability(
        "Rewards",
        "reward managers, reward workers, overlong punishment",
        NO_EFFECT,
        "the rollout workers score whole groups: set reward_preset (docs/reward.md)",
        ("reward", "reward_model", "sandbox_fusion"),
        ("reward.reward_manager.name=dapo", "reward.num_workers=8", "reward_model.reward_manager=dapo"),
    ),
    Capability(
        "Rewards",
        "custom reward function",
        NO_EFFECT,
        "it would never be called, since the rollout workers score whole groups; docs/reward.md says how to bring a "
        "reward of your own",
        ("reward.custom_reward_function", "custom_reward_function"),
        ("reward.custom_reward_function.path=mine.py", "custom_reward_function.path=mine.py"),
    ),
    Capability(
        "Rewards",
        "reward models",
        REFUSED,
        "it would overwrite the rewards of the group; grading.judge asks a model (docs/grading.md)",
        ("reward.reward_model",),
        ("reward.reward_model.enable=true",),
    ),
)
