"""Checks of supervised fine-tuning: those of reinforcement learning, as far as they concern it."""

from __future__ import annotations

from omegaconf import DictConfig

from codedance_verl.config.node import Value, one_of, real, whole
from codedance_verl.data.checking import check_file, progress_line
from codedance_verl.data.rows import Kind
from codedance_verl.data.schema import read_prompts
from codedance_verl.errors import UserError
from codedance_verl.preflight import read_model
from codedance_verl.preflight.attention import check_attention
from codedance_verl.preflight.devices import device_bytes
from codedance_verl.preflight.files import (
    check_checkpoint_folder,
    check_run_folder,
    data_keys,
    data_paths,
    find_model,
    load_processor,
    readable,
)
from codedance_verl.preflight.memory import GIB, EngineMemory, MemorySettings, estimate
from codedance_verl.preflight.model_shape import ModelShape
from codedance_verl.preflight.prompts import longest_prompt
from codedance_verl.preflight.report import Report, at
from codedance_verl.preflight.settings import check_table
from codedance_verl.preflight.verl_names import check_optimizer, check_trackers
from codedance_verl.preflight.verl_nodes import check_sft_nodes
from codedance_verl.rollout.prompt_tokens import PromptTokens

VALUES: dict[str, Value] = {
    "seed": whole(0, 2**31 - 1),
    "data.train_batch_size": whole(1, 1_000_000),
    "data.micro_batch_size_per_gpu": whole(1, 1_000_000),
    "data.max_length": whole(1, 10_000_000),
    "data.max_image_pixels": whole(3_136, 100_000_000),
    "data.num_workers": whole(0, 256),
    "optim.lr": real(0, 1),
    "optim.weight_decay": real(0, 1),
    "optim.lr_warmup_steps": whole(-1, 10_000_000),
    "optim.min_lr_ratio": real(0, 1),
    "trainer.total_training_steps": whole(1, 10_000_000),
    "trainer.nnodes": whole(1, 10_000),
    "trainer.n_gpus_per_node": whole(1, 64),
    "engine.fsdp_size": whole(-1, 100_000),
    "engine.strategy": one_of(("fsdp", "fsdp2")),
}
"""Values of verl's SFT tree that a run rests on."""


def run_checks(config: DictConfig, dry: bool = False) -> Report:
    """Checks values, disk, model folder and every demonstration."""
    report = Report(dry=dry)
    check_table(VALUES, config, report)
    if isinstance(config.optim, DictConfig):
        for line in check_optimizer(config, "optim"):
            report.add_error(line)
    check_sft_nodes(config, report)
    if all(isinstance(at(config, node), DictConfig) for node in ("data", "trainer", "optim", "model", "engine")):
        _check_whole(config, report)
    return report


def _check_whole(config: DictConfig, report: Report) -> None:
    check_trackers(config, report)
    check_run_folder(config, report)
    check_checkpoint_folder(config, report)
    _check_intervals(config, report)
    _check_kept(config, report)
    check_attention(config, report, "model")
    if not report.findings:
        _check_batches(config, report)
    _check_data(config, report)
    shape = _check_model(config, report)
    if shape is not None and report.dry and not report.findings:
        _check_memory(config, report, shape)


def _check_intervals(config: DictConfig, report: Report) -> None:
    """Checks the intervals, by which verl divides the number of every step."""
    for key in ("trainer.save_freq", "trainer.test_freq"):
        value = at(config, key)
        whole = isinstance(value, int) and not isinstance(value, bool)
        if value != "after_each_epoch" and (not whole or value < -1 or value == 0):
            report.add_error(f"{key}={value}: must be a whole number of 1 or more, after_each_epoch, or -1 for never")


def _check_kept(config: DictConfig, report: Report) -> None:
    """Checks the number of checkpoints: verl removes the oldest before it notes that the new one is whole."""
    kept = config.trainer.max_ckpt_to_keep
    if kept is not None and (not isinstance(kept, int) or kept < 2):
        report.add_error(f"trainer.max_ckpt_to_keep={kept}: must be a whole number of 2 or more, or null to keep all")


def _check_batches(config: DictConfig, report: Report) -> None:
    ranks, batch = config.trainer.nnodes * config.trainer.n_gpus_per_node, config.data.train_batch_size
    report.add_row("layout", "training", f"{config.trainer.nnodes} x {config.trainer.n_gpus_per_node} devices")
    if batch % ranks:
        report.add_error(
            f"data.train_batch_size={batch}: must be a multiple of {ranks} (trainer.nnodes x trainer.n_gpus_per_node)"
        )
    elif config.data.use_dynamic_bsz:
        room, longest = config.data.max_token_len_per_gpu, config.data.max_length
        if room < longest:
            report.add_error(f"data.max_token_len_per_gpu={room}: must be at least data.max_length={longest}")
    elif batch // ranks % config.data.micro_batch_size_per_gpu:
        micro = config.data.micro_batch_size_per_gpu
        report.add_error(
            f"data.micro_batch_size_per_gpu={micro}: must divide the {batch // ranks} demonstrations a device"
        )


def _check_data(config: DictConfig, report: Report) -> None:
    with report.collecting():
        if not config.data.train_files:
            raise UserError("data.train_files: no value given; add data.train_files=... to the command")
        keys, usable = data_keys(config), 0
        for path in data_paths(config, "train_files"):
            checked = check_file(path, needs=Kind.DEMONSTRATIONS, keys=keys, progress=progress_line(path.name))
            usable += checked.good
        report.add_row("data", "train_files", f"{usable} demonstrations")
        for path in data_paths(config, "val_files") if config.data.val_files else ():
            check_file(path, needs=Kind.DEMONSTRATIONS, keys=keys, progress=progress_line(path.name))
        batch = config.data.train_batch_size
        if isinstance(batch, int) and usable < batch:
            report.add_error(
                f"data.train_batch_size={batch}: there are only {usable} demonstrations; make more or lower it"
            )


def _check_model(config: DictConfig, report: Report) -> ModelShape | None:
    if not config.model.path:
        report.add_error("model.path: no value given; add model.path=... to the command")
        return None
    folder = find_model(config, report, "model.path")
    if folder is None:
        return None
    processor = load_processor(folder, report, "model.path")
    if processor is not None:
        _check_tokens(config, report, processor)
    return read_model(folder, report, "model.path")


def _check_tokens(config: DictConfig, report: Report, processor: object) -> None:
    """Checks lengths: verl ends at the first demonstration over `data.max_length` (`data.truncation=error`)."""
    limit, pixels = config.data.max_length, config.data.max_image_pixels
    if not isinstance(limit, int) or not isinstance(pixels, int) or not config.data.train_files:
        return
    with report.collecting():
        tokens = PromptTokens(processor, max_pixels=pixels, answer_follows=False)
        for path in readable(data_paths(config, "train_files")):
            found = longest_prompt(read_prompts(path, Kind.DEMONSTRATIONS, data_keys(config)), tokens, limit)
            report.add_row(
                "tokens", "longest demonstration", f"{found.tokens} of {limit}, {found.image_tokens} of images"
            )
            if found.too_long and config.data.truncation == "error":
                report.add_error(
                    f"data.max_length={limit}: must be at least {found.tokens}: {found.too_long} of {found.prompts} "
                    f"demonstrations are longer, the longest is row {found.row} of {path.name}"
                )


def _check_memory(config: DictConfig, report: Report, shape: ModelShape) -> None:
    dynamic, longest = config.data.use_dynamic_bsz, config.data.max_length
    tokens = config.data.max_token_len_per_gpu if dynamic else config.data.micro_batch_size_per_gpu * longest
    precision = config.engine.get("mixed_precision") or {}
    ranks = config.trainer.nnodes * config.trainer.n_gpus_per_node
    size = config.engine.fsdp_size
    settings = MemorySettings(
        shards=size if 0 < size < ranks else ranks,
        actor=EngineMemory(
            compute_bytes=4 if precision.get("param_dtype") in ("fp32", "float32") else 2,
            micro_tokens=tokens,
            param_offload=bool(config.engine.param_offload),
            optimizer_offload=bool(config.engine.optimizer_offload),
            lora_rank=config.model.lora_rank,
        ),
        checkpointing=bool(config.model.enable_gradient_checkpointing),
        separate=True,  # there is no vLLM beside it
        sequence_tokens=longest,
        image_tokens=longest,
    )
    found, device = estimate(shape, settings), device_bytes(config)
    for phase in found.phases:
        parts = ", ".join(f"{name} {size / GIB:.1f}" for name, size in phase.parts.items())
        report.add_row("memory", phase.name.removeprefix("actor: "), f"{phase.total / GIB:.1f} GiB: {parts}")
        shared = config.trainer.n_gpus_per_node if config.trainer.device == "cpu" else 1
        if device is not None and phase.total * shared > device:
            key = "data.max_token_len_per_gpu" if dynamic else "data.micro_batch_size_per_gpu"
            report.add_error(
                f"{key}={at(config, key)}: must be less, or trainer.n_gpus_per_node more: `{phase.name}` takes about "
                f"{phase.total / GIB:.0f} of {device / GIB:.0f} GiB a device, most of it {phase.largest}"
            )
