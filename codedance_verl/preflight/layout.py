"""Layout of a run over its devices, and check that batches divide over them (verl 0.9.1, `trainer/ppo/v1`).

A step trains `data.train_batch_size` questions with `rollout.n` rollouts each, in mini-batches, each of which every
data-parallel rank cuts into micro-batches. verl counts mini-batches in questions and micro-batches in rollouts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from omegaconf import DictConfig

from codedance_verl.preflight.model_shape import ModelShape
from codedance_verl.preflight.report import AlreadyReported, Report, apply_rules, at
from codedance_verl.preflight.settings import ACTOR, ROLLOUT, number
from codedance_verl.reward import advantage
from codedance_verl.rollout.sampling_config import FEWEST_FIRST

SEPARATE = "separate_async"
_ULYSSES = "ulysses_sequence_parallel_size"


@dataclass(frozen=True)
class Layout:
    """Devices and their division.

    Attributes:
        nodes, per_node: of the group that trains.
        ranks: devices that train, nodes x per_node.
        sequence_parallel: ranks that share one sequence (Ulysses).
        data_parallel: parts a batch is divided into, ranks / sequence_parallel.
        shards: devices one copy of weights, gradients and optimizer is spread over (FSDP).
        separate: True where rollouts have devices of their own; else both take turns.
        rollout_devices: devices that sample.
        tensor_parallel: devices of one vLLM engine.
        rollouts: of one step, questions x rollouts of each.
    """

    nodes: int
    per_node: int
    ranks: int
    sequence_parallel: int
    data_parallel: int
    shards: int
    separate: bool
    rollout_devices: int
    tensor_parallel: int
    rollouts: int

    @classmethod
    def of(cls, config: DictConfig) -> Layout:
        """Returns the layout of a configuration. Raises `AlreadyReported` where one of its numbers has an error."""
        nodes, per_node = number(config, "trainer.nnodes"), number(config, "trainer.n_gpus_per_node")
        ranks = nodes * per_node
        parallel, size = (
            number(config, f"{ACTOR}.ulysses_sequence_parallel_size"),
            number(config, f"{ACTOR}.fsdp_config.fsdp_size"),
        )
        separate = at(config, "trainer.v1.trainer_mode") == SEPARATE
        own = number(config, f"{ROLLOUT}.nnodes") * number(config, f"{ROLLOUT}.n_gpus_per_node")
        return cls(
            nodes=nodes,
            per_node=per_node,
            ranks=ranks,
            sequence_parallel=parallel,
            data_parallel=max(ranks // parallel, 1),
            # fsdp_size -1 is FSDP over all ranks; a smaller group keeps ranks / size copies (HSDP)
            shards=ranks if not 0 < size < ranks else size,
            separate=separate,
            rollout_devices=own if separate else ranks,
            tensor_parallel=number(config, f"{ROLLOUT}.tensor_model_parallel_size"),
            rollouts=number(config, "data.train_batch_size") * number(config, f"{ROLLOUT}.n"),
        )


def check_layout(config: DictConfig, report: Report) -> None:
    """Checks devices and batches against each other, and reports their division."""
    apply_rules(RULES, config, report)
    with report.collecting():
        layout = Layout.of(config)
        per_engine = layout.rollout_devices // layout.tensor_parallel
        where = "on devices of their own" if layout.separate else "in turn with training"
        report.add_row("layout", "training", f"{layout.nodes} x {layout.per_node} devices, FSDP over {layout.shards}")
        report.add_row("layout", "rollouts", f"{per_engine} vLLM engines on {layout.rollout_devices} devices, {where}")
        report.add_row("layout", "a step", _step(config, layout))


def check_heads(config: DictConfig, report: Report, shape: ModelShape) -> None:
    """Checks that attention heads divide over the devices of a sequence or an engine, as verl and vLLM assert later."""
    keys = [f"{ACTOR}.{_ULYSSES}", f"{ROLLOUT}.tensor_model_parallel_size"]
    keys += [f"actor_rollout_ref.ref.{_ULYSSES}"] if needs_reference(config) else []
    keys += [f"critic.{_ULYSSES}"] if needs_critic(config) else []
    for key in keys:
        size = at(config, key)
        if report.has_error(key) or not isinstance(size, int) or size < 1 or _heads_divide(shape, size):
            continue
        possible = [str(number) for number in range(1, shape.heads + 1) if _heads_divide(shape, number)]
        report.add_error(
            f"{key}={size}: must divide the {shape.heads} attention heads of {shape.name}, and divide its "
            f"{shape.kv_heads} of keys and values or be a multiple of them: {', '.join(possible)}"
        )


def _heads_divide(shape: ModelShape, size: int) -> bool:
    # with fewer heads of keys and values than devices each is copied to size / kv_heads of them
    return shape.heads % size == 0 and (shape.kv_heads % size == 0 or size % shape.kv_heads == 0)


def _step(config: DictConfig, layout: Layout) -> str:
    batch, n = number(config, "data.train_batch_size"), number(config, f"{ROLLOUT}.n")
    mini = number(config, f"{ACTOR}.ppo_mini_batch_size")
    each = mini * n // layout.data_parallel
    return f"{batch} questions x {n} rollouts, updates of {mini * n} ({each} a device): {batch // mini}"


def _mini_batches(config: DictConfig) -> Iterator[str]:
    batch, key = number(config, "data.train_batch_size"), f"{ACTOR}.ppo_mini_batch_size"
    mini = number(config, key)
    if batch % mini:
        yield f"data.train_batch_size={batch}: must be a multiple of {key}={mini}"


def _ranks(config: DictConfig) -> Iterator[str]:
    layout, n = Layout.of(config), number(config, f"{ROLLOUT}.n")
    mini = number(config, f"{ACTOR}.ppo_mini_batch_size")
    # verl divides the rollouts of a mini-batch over the ranks, whatever their questions
    if mini * n % layout.data_parallel:
        yield (
            f"{ACTOR}.ppo_mini_batch_size={mini}: times {ROLLOUT}.n={n} must be a multiple of the "
            f"{layout.data_parallel} data-parallel devices (trainer.nnodes x trainer.n_gpus_per_node)"
        )


def _micro_batches(config: DictConfig) -> Iterator[str]:
    if at(config, f"{ACTOR}.use_dynamic_bsz"):
        return
    layout = Layout.of(config)
    of_mini = number(config, f"{ACTOR}.ppo_mini_batch_size") * number(config, f"{ROLLOUT}.n")
    # old log-probs are those of everything that is sampled for an update, which is padded to whole mini-batches
    parts = {f"{ACTOR}.ppo_micro_batch_size_per_gpu": of_mini, f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu": of_mini}
    if at(config, f"{ACTOR}.use_kl_loss") or at(config, "algorithm.use_kl_in_reward"):
        parts["actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu"] = of_mini
    for key, rollouts in parts.items():
        micro = number(config, key)
        if micro is None:
            yield f"{key}=null: must be a whole number of at least 1, or set {ACTOR}.use_dynamic_bsz=true"
        elif rollouts % layout.data_parallel == 0 and rollouts // layout.data_parallel % micro:
            yield f"{key}={micro}: must divide the {rollouts // layout.data_parallel} rollouts of a mini-batch a device"


def _dynamic_batches(config: DictConfig) -> Iterator[str]:
    if not at(config, f"{ACTOR}.use_dynamic_bsz"):
        return
    longest = longest_sequence(config)
    key = f"{ACTOR}.ppo_max_token_len_per_gpu"
    # the ranks of a sequence share its tokens, so that their micro-batches together must hold the longest one
    room, parallel = number(config, key), number(config, f"{ACTOR}.ulysses_sequence_parallel_size")
    if room * parallel < longest:
        yield (
            f"{key}={room}: must be at least {-(-longest // parallel)}, or a sequence of data.max_prompt_length + "
            f"data.max_response_length = {longest} tokens fits into no micro-batch"
        )


def _sequence_parallel(config: DictConfig) -> Iterator[str]:
    layout, key = Layout.of(config), f"{ACTOR}.ulysses_sequence_parallel_size"
    if layout.ranks % layout.sequence_parallel:
        yield f"{key}={layout.sequence_parallel}: must divide the {layout.ranks} training devices"
    if layout.sequence_parallel > 1 and not at(config, "actor_rollout_ref.model.use_remove_padding"):
        yield f"{key}={layout.sequence_parallel}: needs actor_rollout_ref.model.use_remove_padding=true"
    others = [("actor_rollout_ref.ref", needs_reference(config)), ("critic", needs_critic(config))]
    for other, size in [(f"{node}.{_ULYSSES}", at(config, f"{node}.{_ULYSSES}")) for node, used in others if used]:
        if not isinstance(size, int) or size < 1 or layout.ranks % size:
            yield f"{other}={size}: must divide the {layout.ranks} training devices"


def _shards(config: DictConfig) -> Iterator[str]:
    layout, key = Layout.of(config), f"{ACTOR}.fsdp_config.fsdp_size"
    size = number(config, key)
    if size == 0 or size > layout.ranks or layout.ranks % layout.shards:
        yield f"{key}={size}: must be -1 or divide the {layout.ranks} training devices"


def _tensor_parallel(config: DictConfig) -> Iterator[str]:
    layout, key = Layout.of(config), f"{ROLLOUT}.tensor_model_parallel_size"
    if layout.rollout_devices % layout.tensor_parallel:
        whose = (
            f"{ROLLOUT}.nnodes x {ROLLOUT}.n_gpus_per_node" if layout.separate else "trainer.nnodes x n_gpus_per_node"
        )
        yield f"{key}={layout.tensor_parallel}: must divide the {layout.rollout_devices} rollout devices ({whose})"


def _separate(config: DictConfig) -> Iterator[str]:
    if at(config, "trainer.v1.trainer_mode") != SEPARATE:
        return
    for name in ("nnodes", "n_gpus_per_node"):
        if number(config, f"{ROLLOUT}.{name}") < 1:
            yield f"{ROLLOUT}.{name}=0: must be at least 1 with trainer=separate_async"
    steps, key = number(config, "trainer.v1.separate_async.parameter_sync_step"), "data.train_batch_size"
    batch, mini = number(config, key), number(config, f"{ACTOR}.ppo_mini_batch_size")
    # a step ends with the transfer of weights, after this many mini-batches
    if batch != steps * mini:
        yield (
            f"{key}={batch}: must be trainer.v1.separate_async.parameter_sync_step={steps} times "
            f"{ACTOR}.ppo_mini_batch_size={mini}"
        )


def _groups(config: DictConfig) -> Iterator[str]:
    if at(config, "trainer.val_only") or at(config, "algorithm.adv_estimator") != advantage.NAME:
        return
    n = number(config, f"{ROLLOUT}.n")
    if n < 2:  # a group of one equals its own mean: every advantage would be 0
        yield f"{ROLLOUT}.n={n}: must be at least 2, as {advantage.NAME} compares the rollouts of a question"


def _redraw(config: DictConfig) -> Iterator[str]:
    later, n = at(config, "sampling.redraw_calls"), number(config, f"{ROLLOUT}.n")
    if at(config, "trainer.val_only") or not isinstance(later, int) or later < 2:
        return
    if n - later < FEWEST_FIRST:
        yield (
            f"sampling.redraw_calls={later}: must be at most {max(n - FEWEST_FIRST, 0)}, as {FEWEST_FIRST} of the "
            f"{ROLLOUT}.n={n} rollouts of a question are drawn from the start at least"
        )
    if fatal := at(config, "reward_preset.fatal_failures"):
        # each puts a value outside of the response mask, with a meaning of its own (reward/encoding.py)
        yield (
            f"sampling.redraw_calls={later}: must be 0 with reward_preset.fatal_failures={fatal}, as both leave "
            "turns of a rollout untrained; set one of them to 0"
        )


def _steps(config: DictConfig) -> Iterator[str]:
    if at(config, "trainer.val_only"):
        return
    # conf/base.yaml sets a million epochs, so that the number of steps ends a run
    if number(config, "trainer.total_training_steps") is None and number(config, "trainer.total_epochs") >= 1_000_000:
        yield "trainer.total_training_steps=null: must be a whole number of at least 1, or set trainer.total_epochs"


def _critic(config: DictConfig) -> Iterator[str]:
    if not needs_critic(config):
        return
    key = "critic.ppo_micro_batch_size_per_gpu"
    if not at(config, "critic.model.path") or at(config, "critic.model.path") != at(
        config, "actor_rollout_ref.model.path"
    ):
        yield (
            f"critic.model.path={at(config, 'critic.model.path')}: must be that of the policy, "
            "${actor_rollout_ref.model.path}; algorithm=ppo sets it"
        )
    if at(config, "critic.use_dynamic_bsz"):
        longest = longest_sequence(config)
        room = at(config, "critic.ppo_max_token_len_per_gpu")
        if not isinstance(room, int) or room < longest:
            yield f"critic.ppo_max_token_len_per_gpu={room}: must be at least {longest}, the longest sequence"
        return
    micro, layout = at(config, key), Layout.of(config)
    rollouts = number(config, f"{ACTOR}.ppo_mini_batch_size") * number(config, f"{ROLLOUT}.n") // layout.data_parallel
    if not isinstance(micro, int) or micro < 1 or rollouts % micro:
        yield f"{key}={micro}: must divide the {rollouts} rollouts of a mini-batch a device"


def _sandbox_places(config: DictConfig) -> Iterator[str]:
    """Checks that sessions and queue of a node hold its rollouts: a step begins all at once, others are refused."""
    layout, sandbox = Layout.of(config), config.sandbox
    oversample = at(config, "sampling.oversample")
    values = (sandbox.containers, sandbox.sessions_per_container, sandbox.queue_length)
    if not all(isinstance(value, int) for value in values) or not isinstance(oversample, int | float):
        raise AlreadyReported("sandbox")
    # `oversample` draws more rollouts than are trained on; a node takes its share of them, rounded up
    places, a_node = sandbox.containers * sandbox.sessions_per_container, int(layout.rollouts * oversample)
    a_node = -(-a_node // layout.nodes)
    if a_node > places + sandbox.queue_length:
        yield (
            f"sandbox.queue_length={sandbox.queue_length}: must be at least {a_node - places}: {a_node} rollouts a "
            f"node are begun at once and sandbox.containers x sandbox.sessions_per_container are {places} places"
        )


def longest_sequence(config: DictConfig) -> int:
    """Returns the most tokens of a rollout, prompt and response."""
    return int(number(config, "data.max_prompt_length") + number(config, "data.max_response_length"))


def needs_critic(config: DictConfig) -> bool:
    """Returns True where verl trains a critic (`verl.trainer.ppo.utils.need_critic`)."""
    enabled = at(config, "critic.enable")
    return bool(enabled) if enabled is not None else at(config, "algorithm.adv_estimator") == "gae"


def needs_reference(config: DictConfig) -> bool:
    """Returns True where verl keeps a reference model (`verl.trainer.ppo.utils.need_reference_policy`)."""
    return bool(at(config, "algorithm.use_kl_in_reward") or at(config, f"{ACTOR}.use_kl_loss"))


RULES = (
    _mini_batches,
    _ranks,
    _micro_batches,
    _dynamic_batches,
    _sequence_parallel,
    _shards,
    _tensor_parallel,
    _separate,
    _groups,
    _redraw,
    _steps,
    _critic,
    _sandbox_places,
)
