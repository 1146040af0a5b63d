"""Estimate of the memory of one device: states of training, what a pass needs on top, and the share of vLLM.

It rests on the sizes of the model and the settings alone; activations are coarse. Each phase of a step lists what a
device holds at once, in bytes:

    states       weights, gradients and Adam's two moments, over the devices of FSDP; what is offloaded is in the
                 host's memory until it is used
    gathered     the block that FSDP computes with and the next one, and what belongs to no block
    activations  with gradient checkpointing the input of every block and the insides of one; without, all insides
    images       the same as activations, of the vision tower
    logits       of the tokens of a micro-batch: themselves, their gradient, and one copy for softmax and entropy
    vLLM         its share of the device while it samples; what it keeps while it sleeps
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from codedance_verl.preflight.model_shape import ModelShape

GIB = float(1 << 30)
OVERHEAD = 1.5 * GIB
"""Bytes of a process on a device: the CUDA context, NCCL's buffers, fragments of the allocator."""

VLLM_OVERHEAD = 2.5 * GIB
"""Bytes of a vLLM engine beside weights and KV cache: activations of a prefill, CUDA graphs, images."""

VLLM_ASLEEP = 1.5 * GIB
"""Bytes that an engine keeps while it sleeps: its CUDA context and graphs."""

LOGIT_COPIES = 3
"""Logits, their gradient, and one copy for softmax and entropy."""

INSIDES_HIDDEN, INSIDES_FFN = 10, 4
"""Values a block keeps of a token for its backward pass, in units of its width and of its feed-forward width."""

INSIDES_VISION = 20
"""Values a block of the vision tower keeps of a patch, in units of its width, feed-forward included."""


@dataclass(frozen=True)
class EngineMemory:
    """Storage of a model that is trained or only read.

    Attributes:
        weight_bytes: of a stored weight, 2 or 4; gradients and each moment have the same dtype.
        compute_bytes: of a value in a forward pass, 2 or 4.
        micro_tokens: tokens of a micro-batch of a device.
        param_offload, optimizer_offload: weights with gradients, or moments, are in host memory while not in use.
        always_offloaded: all of them always are, blocks are fetched one by one (FSDP2's offload policy; a reference).
        lora_rank: adapters of this rank are trained in place of the weights; 0 for none.
    """

    weight_bytes: int = 4
    compute_bytes: int = 2
    micro_tokens: int = 0
    param_offload: bool = False
    optimizer_offload: bool = False
    always_offloaded: bool = False
    lora_rank: int = 0


@dataclass(frozen=True)
class MemorySettings:
    """Settings that the estimate depends on, beside the model.

    Attributes:
        shards: devices that share one copy of the states.
        sequence_parallel: devices that share one sequence.
        actor, critic, reference: None where there is none.
        checkpointing: blocks are computed again in the backward pass.
        fused_logits: logits are never made as a whole.
        separate: vLLM has devices of its own.
        device_bytes: memory of a device; None where there is none to ask.
        vllm_share: of a device's memory, 0 to 1; vllm_bytes: of a weight or a cached value there.
        vllm_sleeps: vLLM frees its memory while training uses the device.
        tensor_parallel: devices of an engine.
        kv_cache_bytes: of an engine, where it is set by itself (vLLM on a CPU).
        sequence_tokens: longest sequence, prompt and response. image_tokens: most tokens of images in it.
    """

    shards: int
    actor: EngineMemory
    critic: EngineMemory | None = None
    reference: EngineMemory | None = None
    sequence_parallel: int = 1
    checkpointing: bool = True
    fused_logits: bool = False
    separate: bool = False
    device_bytes: float | None = None
    vllm_share: float = 0.5
    vllm_bytes: int = 2
    vllm_sleeps: bool = True
    tensor_parallel: int = 1
    kv_cache_bytes: float | None = None
    sequence_tokens: int = 0
    image_tokens: int = 0


@dataclass(frozen=True)
class States:
    """Bytes of a model's states on one device, its share of FSDP's."""

    weights: float
    gradients: float
    moments: float

    @property
    def total(self) -> float:
        return self.weights + self.gradients + self.moments


@dataclass(frozen=True)
class Phase:
    """Phase of a step, with the bytes a device holds at once by kind."""

    name: str
    parts: Mapping[str, float] = field(default_factory=dict)

    @property
    def total(self) -> float:
        return sum(self.parts.values())

    @property
    def largest(self) -> str:
        """Returns the kind that takes most."""
        return max(self.parts, key=lambda name: self.parts[name])


@dataclass(frozen=True)
class Estimate:
    """Phases of the training devices (the sampling one among them where devices take turns), and of vLLM.

    Attributes:
        phases: in the order of a step.
        vllm_weights, kv_cache: bytes of an engine on one device; kv_cache below 0: not even the weights fit. None where
            the memory of a device is unknown.
        kv_tokens: tokens the KV cache of an engine holds.
        kept: bytes of training that stay on the device while vLLM samples.
        host: bytes in host memory for each training device.
        checkpoint: bytes of a checkpoint, all devices together.
    """

    phases: tuple[Phase, ...]
    vllm_weights: float
    kv_cache: float | None
    kv_tokens: int
    kept: float
    host: float
    checkpoint: float


def states(shape: ModelShape, engine: EngineMemory, shards: int) -> States:
    """Returns the weights, gradients and moments of one device."""
    # with LoRA the frozen weights are stored beside the adapters, and only these have gradients and moments
    adapters = engine.lora_rank * shape.lora_parameters_per_rank
    trained = adapters or shape.parameters
    width = engine.weight_bytes / shards
    return States((shape.parameters + adapters) * width, trained * width, 2 * trained * width)


def gathered(shape: ModelShape, engine: EngineMemory, shards: int) -> float:
    """Returns the bytes of whole weights a device holds while it computes; 0 where nothing is divided."""
    if shards == 1 and not engine.always_offloaded:
        return 0.0
    # FSDP prefetches: the block that computes and the next one are whole at once
    return (shape.outer_parameters + 2 * shape.block_parameters) * float(engine.compute_bytes)


def activations(shape: ModelShape, engine: EngineMemory, settings: MemorySettings) -> dict[str, float]:
    """Returns the bytes that a micro-batch keeps for its backward pass, by kind."""
    tokens = engine.micro_tokens / settings.sequence_parallel
    # values of a token in a block; with checkpointing every block keeps its input, and one block all of its insides
    insides = INSIDES_HIDDEN * shape.hidden + INSIDES_FFN * shape.intermediate
    blocks = shape.layers * shape.hidden + insides if settings.checkpointing else shape.layers * insides
    # the vision tower works on patches, merge x merge of them a token; every rank of a sequence is taken to run all
    patches = min(engine.micro_tokens, _image_tokens(engine, settings)) * shape.merge**2
    of_patch = shape.vision_hidden * shape.vision_layers * (1 if settings.checkpointing else INSIDES_VISION)
    return {
        "activations": tokens * blocks * engine.compute_bytes,
        "images": float(patches * of_patch * engine.compute_bytes),
        "logits": logits(shape, engine, settings),
    }


def logits(shape: ModelShape, engine: EngineMemory, settings: MemorySettings) -> float:
    """Returns the bytes of logits [tokens of a micro-batch / sequence_parallel, vocabulary] and their copies."""
    if settings.fused_logits:
        return 0.0
    return engine.micro_tokens / settings.sequence_parallel * shape.vocabulary * engine.compute_bytes * LOGIT_COPIES


def _image_tokens(engine: EngineMemory, settings: MemorySettings) -> int:
    """Returns the most tokens of images in a micro-batch."""
    # whole sequences that fit in, each with as many images as the environment allows
    sequences = max(engine.micro_tokens // max(settings.sequence_tokens, 1), 1)
    return sequences * settings.image_tokens


def estimate(shape: ModelShape, settings: MemorySettings) -> Estimate:
    """Returns the estimate for a model and settings."""
    trained = {"actor": settings.actor} | ({"critic": settings.critic} if settings.critic else {})
    held = {name: states(shape, engine, settings.shards) for name, engine in trained.items()}
    # without gradients, which are freed after an update
    kept = sum(_kept(held[name], engine) for name, engine in trained.items())
    vllm = _vllm_total(shape, settings)
    asleep = 0.0 if settings.separate else (VLLM_ASLEEP if settings.vllm_sleeps else vllm)
    if settings.kv_cache_bytes is not None and not settings.separate:
        asleep = vllm  # on a CPU vLLM never sleeps
    phases = [] if settings.separate else [Phase("sampling", {"states": kept, "vLLM": vllm})]
    # actor and critic take turns on the devices: while one is updated the other keeps what is not offloaded
    for name, engine in trained.items():
        others = sum(_kept(held[other], trained[other]) for other in trained if other != name)
        phases += _update(name, shape, settings, engine, held[name], others + asleep)
    if settings.reference is not None:  # a forward pass only: no activations are kept
        parts = {
            "states": kept,
            "gathered": gathered(shape, settings.reference, settings.shards),
            "logits": logits(shape, settings.reference, settings),
            "rest": OVERHEAD + asleep,
        }
        phases.append(Phase("reference log-probs", parts))
    weights = shape.parameters * settings.vllm_bytes / settings.tensor_parallel
    cache = _kv_cache(settings, weights)
    # devices beyond the heads of keys and values hold copies of them
    per_token = shape.kv_bytes_per_token(settings.vllm_bytes) / min(settings.tensor_parallel, shape.kv_heads)
    return Estimate(
        phases=tuple(phases),
        vllm_weights=weights,
        kv_cache=cache,
        kv_tokens=int(max(cache or 0.0, 0.0) / per_token),
        kept=kept,
        host=_host(shape, settings, trained, held),
        checkpoint=_checkpoint(shape, trained),
    )


def _update(
    name: str, shape: ModelShape, settings: MemorySettings, engine: EngineMemory, held: States, others: float
) -> list[Phase]:
    """Returns the phases of an update: forward and backward passes, then the optimizer's step."""
    # FSDP2's offload policy steps the optimizer on the host: nothing of it ever lies on the device
    weights = 0.0 if engine.always_offloaded else held.weights + held.gradients
    moments = 0.0 if engine.always_offloaded else held.moments
    # verl loads offloaded weights for the passes, and moments for the step alone
    passes = {
        "states": weights + (0.0 if engine.optimizer_offload else moments),
        "gathered": gathered(shape, engine, settings.shards),
        **activations(shape, engine, settings),
        "rest": OVERHEAD + others,
    }
    return [
        Phase(f"{name}: passes", passes),
        Phase(f"{name}: optimizer", {"states": weights + moments, "rest": OVERHEAD + others}),
    ]


def _kept(held: States, engine: EngineMemory) -> float:
    """Returns the bytes that stay on the device while another model or vLLM uses it."""
    if engine.always_offloaded:
        return 0.0
    return (0.0 if engine.param_offload else held.weights) + (0.0 if engine.optimizer_offload else held.moments)


def _vllm_total(shape: ModelShape, settings: MemorySettings) -> float:
    """Returns the bytes of an engine on one device: with a GPU the share it is given, filled by the KV cache."""
    if settings.kv_cache_bytes is not None:
        return shape.parameters * settings.vllm_bytes / settings.tensor_parallel + settings.kv_cache_bytes + OVERHEAD
    return settings.vllm_share * (settings.device_bytes or 0.0)


def _kv_cache(settings: MemorySettings, weights: float) -> float | None:
    """Returns the bytes that weights and overhead leave of vLLM's share; below 0 where they exceed it."""
    if settings.kv_cache_bytes is not None:
        return settings.kv_cache_bytes
    if settings.device_bytes is None:
        return None
    return settings.vllm_share * settings.device_bytes - weights - VLLM_OVERHEAD


def _host(
    shape: ModelShape, settings: MemorySettings, trained: Mapping[str, EngineMemory], held: Mapping[str, States]
) -> float:
    """Returns the bytes of host memory for each training device: all that is offloaded, the reference included."""
    total = 0.0
    for name, engine in trained.items():
        if engine.always_offloaded:
            total += held[name].total
            continue
        total += held[name].weights if engine.param_offload else 0.0
        total += held[name].moments if engine.optimizer_offload else 0.0
    if settings.reference is not None:
        total += shape.parameters * settings.reference.weight_bytes / settings.shards
    return total


def _checkpoint(shape: ModelShape, trained: Mapping[str, EngineMemory]) -> float:
    """Returns the bytes of weights and moments of all trained models, and of the policy as a Hugging Face folder."""
    total = 0.0
    for engine in trained.values():
        whole = states(shape, engine, 1)
        total += whole.weights + whole.moments
    return total + shape.parameters * 2  # two bytes a weight
