"""Comparison of the memory estimate with the devices of a run, and of the devices wanted with this machine."""

from __future__ import annotations

from collections.abc import Iterator

from omegaconf import DictConfig

from codedance_verl.preflight.layout import Layout, longest_sequence, needs_critic, needs_reference
from codedance_verl.preflight.memory import (
    GIB,
    VLLM_OVERHEAD,
    EngineMemory,
    Estimate,
    MemorySettings,
    Phase,
    estimate,
)
from codedance_verl.preflight.model_shape import ModelShape
from codedance_verl.preflight.report import Report, at, joins_cluster
from codedance_verl.preflight.settings import ACTOR, MODEL, ROLLOUT, number

BYTES_OF_A_VALUE = {"fp32": 4, "float32": 4, "bf16": 2, "bfloat16": 2, "fp16": 2, "float16": 2}
"""Bytes by dtype, as verl spells them."""

_SAFE = 0.97
"""Share of a device's memory that may be planned; the rest is its driver's."""


def check_device(config: DictConfig, report: Report) -> None:
    """Checks that this machine has the GPUs wanted; a dry run, or a run that joins a cluster, has them elsewhere."""
    if at(config, "trainer.device") != "cuda":
        return
    import torch

    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    report.add_row("devices", "this machine", f"{found} GPUs" if found else "no GPU: the run's are elsewhere")
    if report.dry or joins_cluster(config):
        return
    with report.collecting():
        layout = Layout.of(config)
        wanted = layout.ranks + (layout.rollout_devices if layout.separate else 0)
        if not found:
            report.add_error(
                "trainer.device=cuda: torch finds no CUDA device; use hardware=cpu, or install requirements/gpu.txt "
                "and check `nvidia-smi`"
            )
        elif wanted > found:
            report.add_error(
                f"trainer.n_gpus_per_node={layout.per_node}: {wanted} GPUs are asked for in all and this machine has "
                f"{found}; set RAY_ADDRESS to join a cluster"
            )


def check_memory(config: DictConfig, report: Report, shape: ModelShape) -> None:
    """Estimates the memory of a device and reports what does not fit."""
    with report.collecting():
        settings = memory_settings(config)
        found = estimate(shape, settings)
        _report_estimate(report, settings, found)
        if settings.device_bytes is None:
            return
        lines = _on_cpu(config, settings, found) if _is_cpu(config) else _on_gpus(config, shape, settings, found)
        for line in lines:
            report.add_error(line)


def memory_settings(config: DictConfig) -> MemorySettings:
    """Returns the settings of the estimate, read from a training configuration."""
    layout = Layout.of(config)
    longest = longest_sequence(config)
    # a token of an image stands for 2 x 2 patches, merged by the vision tower
    factor = 2 * (at(config, "data.image_patch_size") or 14)
    image_tokens = at(config, "environment.max_images") * at(config, "environment.max_image_pixels") // factor**2
    return MemorySettings(
        shards=layout.shards,
        sequence_parallel=layout.sequence_parallel,
        actor=_engine(config, ACTOR, "fsdp_config", _micro_tokens(config, longest)),
        critic=_engine(config, "critic", "fsdp", _micro_tokens(config, longest)) if needs_critic(config) else None,
        reference=_reference(config, longest) if needs_reference(config) else None,
        checkpointing=bool(at(config, f"{MODEL}.enable_gradient_checkpointing")),
        fused_logits=bool(at(config, f"{MODEL}.use_fused_kernels")),
        separate=layout.separate,
        device_bytes=device_bytes(config),
        vllm_share=number(config, f"{ROLLOUT}.gpu_memory_utilization"),
        vllm_bytes=BYTES_OF_A_VALUE.get(str(at(config, f"{ROLLOUT}.dtype")), 2),
        vllm_sleeps=bool(at(config, f"{ROLLOUT}.free_cache_engine")),
        tensor_parallel=layout.tensor_parallel,
        kv_cache_bytes=_kv_cache_on_cpu(config),
        sequence_tokens=longest,
        image_tokens=min(image_tokens, longest),
    )


def device_bytes(config: DictConfig) -> float | None:
    """Returns the memory of one device in bytes: as configured, else of this machine; None where there is no GPU."""
    configured = number(config, "gpu_memory_gib")
    if configured is not None:
        return float(configured) * GIB
    if _is_cpu(config):
        from codedance_verl.preflight.doctor import memory_limit_gib

        return memory_limit_gib() * GIB
    import torch

    return float(torch.cuda.get_device_properties(0).total_memory) if torch.cuda.is_available() else None


def _engine(config: DictConfig, node: str, fsdp: str, micro_tokens: int) -> EngineMemory:
    settings = at(config, f"{node}.{fsdp}")
    precision = settings.get("mixed_precision") or {}
    return EngineMemory(
        weight_bytes=BYTES_OF_A_VALUE.get(str(settings.get("model_dtype") or "fp32"), 4),
        compute_bytes=BYTES_OF_A_VALUE.get(str(precision.get("param_dtype") or "bf16"), 2),
        micro_tokens=micro_tokens,
        param_offload=bool(settings.get("param_offload")),
        optimizer_offload=bool(settings.get("optimizer_offload")),
        always_offloaded=bool(settings.get("offload_policy")),
        lora_rank=number(config, f"{MODEL}.lora_rank") if node == ACTOR else 0,
    )


def _reference(config: DictConfig, longest: int) -> EngineMemory | None:
    """Returns the reference model's part; None with LoRA: there the policy without adapters is the reference."""
    if number(config, f"{MODEL}.lora_rank"):
        return None
    micro = number(config, "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu") or 1
    dynamic = at(config, f"{ACTOR}.use_dynamic_bsz")
    tokens = _micro_tokens(config, longest) if dynamic else micro * longest
    plain = _engine(config, "actor_rollout_ref.ref", "fsdp_config", tokens)
    # verl always offloads the reference, whatever its node says
    return EngineMemory(plain.weight_bytes, plain.compute_bytes, tokens, always_offloaded=True)


def _micro_tokens(config: DictConfig, longest: int) -> int:
    if at(config, f"{ACTOR}.use_dynamic_bsz"):
        return int(number(config, f"{ACTOR}.ppo_max_token_len_per_gpu"))
    return int(number(config, f"{ACTOR}.ppo_micro_batch_size_per_gpu") or 1) * longest


def _kv_cache_on_cpu(config: DictConfig) -> float | None:
    if not _is_cpu(config):
        return None
    return float(at(config, "env_vars.VLLM_CPU_KVCACHE_SPACE") or 4) * GIB


def _is_cpu(config: DictConfig) -> bool:
    return str(at(config, "trainer.device")) == "cpu"


def _report_estimate(report: Report, settings: MemorySettings, found: Estimate) -> None:
    device = "?" if settings.device_bytes is None else f"{settings.device_bytes / GIB:.0f}"
    report.add_row("memory", "of a device", f"{device} GiB; what follows is an estimate, activations coarse")
    for phase in found.phases:
        parts = ", ".join(f"{name} {size / GIB:.1f}" for name, size in phase.parts.items())
        report.add_row("memory", phase.name, f"{phase.total / GIB:.1f} GiB: {parts}")
    weights = f"weights {found.vllm_weights / GIB:.1f} GiB"
    if found.kv_cache is None:
        report.add_row("memory", "vLLM", f"{weights}; set gpu_memory_gib to see its KV cache")
    else:
        # rollouts at their longest; shorter ones leave room for more
        full = found.kv_tokens / max(settings.sequence_tokens, 1)
        report.add_row(
            "memory",
            "vLLM",
            f"{weights}, KV cache {found.kv_cache / GIB:.1f} GiB, {found.kv_tokens} tokens: {full:.1f} rollouts of "
            "full length at once in an engine",
        )
    report.add_row("memory", "of the host, a device", f"{found.host / GIB:.1f} GiB offloaded")
    report.add_row("memory", "a checkpoint", f"{found.checkpoint / GIB:.1f} GiB of disk")


def _on_gpus(config: DictConfig, shape: ModelShape, settings: MemorySettings, found: Estimate) -> Iterator[str]:
    assert settings.device_bytes is not None and found.kv_cache is not None
    device, share = settings.device_bytes, settings.vllm_share
    key = f"{ROLLOUT}.gpu_memory_utilization"
    # bytes of the KV cache of one full rollout on a device; heads of keys and values are split, not copied, up to
    # as many devices as there are of them
    sequence = settings.sequence_tokens * shape.kv_bytes_per_token(settings.vllm_bytes)
    sequence //= min(settings.tensor_parallel, shape.kv_heads)
    if found.kv_cache < sequence:
        least = (found.vllm_weights + VLLM_OVERHEAD + sequence) / device
        yield (
            f"{key}={share:g}: must be at least {least:.2f}: vLLM's weights and one rollout of full length take about "
            f"{least * device / GIB:.0f} of {device / GIB:.0f} GiB; or raise {ROLLOUT}.tensor_model_parallel_size"
        )
    for phase in found.phases:
        if phase.total <= _SAFE * device:
            continue
        if phase.name == "sampling" and found.kept < _SAFE * device:
            yield (
                f"{key}={share:g}: must be at most {max(_SAFE - found.kept / device, 0):.2f}: training keeps "
                f"{found.kept / GIB:.1f} of {device / GIB:.0f} GiB; or set "
                f"{ACTOR}.fsdp_config.param_offload=true and optimizer_offload=true"
            )
        elif phase.name != "sampling":
            yield _too_much(config, phase, device)
            return


def _too_much(config: DictConfig, phase: Phase, device: float) -> str:
    """Returns the error of a phase that does not fit, with the key that governs the largest part of it."""
    need = f"`{phase.name}` takes about {phase.total / GIB:.0f} of {device / GIB:.0f} GiB a device"
    most = f"most of it {phase.largest}, {phase.parts[phase.largest] / GIB:.0f}"
    if phase.largest in ("activations", "images", "logits"):
        dynamic = at(config, f"{ACTOR}.use_dynamic_bsz")
        key = f"{ACTOR}.ppo_max_token_len_per_gpu" if dynamic else f"{ACTOR}.ppo_micro_batch_size_per_gpu"
        return (
            f"{key}={at(config, key)}: must be less, or use more {ACTOR}.ulysses_sequence_parallel_size: {need}, {most}"
        )
    if phase.largest == "rest":
        return f"{ROLLOUT}.free_cache_engine={at(config, f'{ROLLOUT}.free_cache_engine')}: must be true: {need}, {most}"
    layout = Layout.of(config)
    key = f"{ACTOR}.fsdp_config.fsdp_size" if layout.shards < layout.ranks else "trainer.n_gpus_per_node"
    wanted = "-1, over all devices" if layout.shards < layout.ranks else "more, or trainer.nnodes"
    return f"{key}={at(config, key)}: must be {wanted}; or set {ACTOR}.fsdp_config.offload_policy=true: {need}, {most}"


def _on_cpu(config: DictConfig, settings: MemorySettings, found: Estimate) -> Iterator[str]:
    """Yields the error where all devices together exceed the machine: on a CPU they share its memory."""
    assert settings.device_bytes is not None
    layout, machine = Layout.of(config), settings.device_bytes
    phase = max(found.phases, key=lambda item: item.total)
    total = layout.per_node * (phase.total + found.host)
    if settings.separate:
        cache = settings.kv_cache_bytes or 0.0
        total += layout.rollout_devices * (found.vllm_weights + cache)
    if total > machine:
        yield (
            f"{MODEL}.path={at(config, f'{MODEL}.path')}: must be a smaller model, or hardware=1xgpu or more: with "
            f"trainer.device=cpu `{phase.name}` takes about {total / GIB:.0f} of {machine / GIB:.0f} GiB"
        )
