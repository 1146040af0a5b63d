"""Checks of a configuration before the run starts; a dry run prints their results and ends there.

Every fault gives one line: the dotted key, its value, the values allowed. A run makes the same checks as a dry run but
for the memory estimate, since an estimate must not keep a run from starting.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from omegaconf import DictConfig

from codedance_verl.errors import UserError
from codedance_verl.preflight.attention import check_attention
from codedance_verl.preflight.capabilities import check_capabilities, nodes_are_whole
from codedance_verl.preflight.capability_conditions import check_conditions
from codedance_verl.preflight.custom import check_custom
from codedance_verl.preflight.devices import check_device, check_memory
from codedance_verl.preflight.files import (
    check_checkpoint_folder,
    check_cluster_paths,
    check_data,
    check_output_folder,
    check_ray_folder,
    check_run_folder,
    check_start,
    find_model,
    load_processor,
)
from codedance_verl.preflight.images import check_images
from codedance_verl.preflight.layout import check_heads, check_layout, needs_critic, needs_reference
from codedance_verl.preflight.model_shape import ModelShape, read_shape
from codedance_verl.preflight.prompts import check_lengths, check_prompts
from codedance_verl.preflight.report import Report, at, print_warnings
from codedance_verl.preflight.services import check_engine, check_judge
from codedance_verl.preflight.settings import MODEL, OURS, check_settings
from codedance_verl.preflight.transfer import check_bucket, check_transfer
from codedance_verl.preflight.verl_names import check_names
from codedance_verl.preflight.verl_nodes import check_dataclasses, check_fields

__all__ = ["check", "check_output_folder", "run_checks"]


def check(config: DictConfig) -> None:
    """Checks a training or evaluation configuration before it runs.

    Raises:
        UserError: one line a fault.
    """
    report = run_checks(config)
    if report.findings:
        raise UserError("\n".join(report.findings))
    print_warnings(report)


def run_checks(config: DictConfig, dry: bool = False) -> Report:
    """Makes every check; with `dry` nothing is started, and the memory of a device is estimated.

    Where a node is no mapping any more, nothing below it can be checked, and this fault alone is reported.
    """
    report = Report(dry=dry)
    check_capabilities(config, report)
    if not report.findings or nodes_are_whole(config):
        check_values(config, report)
        if all(isinstance(at(config, node), DictConfig) for node in OURS):
            _check_whole(config, report)
    return report


def check_values(config: DictConfig, report: Report) -> None:
    """Checks every value by itself, the dataclasses verl makes of its nodes, and that something reads it."""
    # our own keys first: later checks leave out what has an error already
    check_settings(config, report)
    check_names(config, report)
    check_transfer(config, report)
    check_fields(config, report)
    check_dataclasses(config, report)
    check_conditions(config, report)


def _check_whole(config: DictConfig, report: Report) -> None:
    """Checks values against each other, against files and machines."""
    # folders before the model and the data, which take minutes to read
    for check in (
        check_cluster_paths,
        check_ray_folder,
        check_run_folder,
        check_checkpoint_folder,
        check_start,
        check_layout,
        check_device,
        check_attention,
    ):
        check(config, report)
    shape = _check_model(config, report)
    check_lengths(config, report, shape)
    check_bucket(config, report, shape)
    if shape is not None:
        check_heads(config, report, shape)
    facts = check_data(config, report)
    check_images(config, report, facts.load)
    if shape is not None and report.dry:  # an estimate must not keep a run from starting
        with report.resting():
            check_memory(config, report, shape)
    check_judge(config, report, facts.open_records)
    check_custom(config, report)
    # last of ours: it may start a container engine, which a run that is refused has no use for
    check_engine(config, report)
    if not report.findings:
        _validate_by_verl(config, report)


def _check_model(config: DictConfig, report: Report) -> ModelShape | None:
    """Checks the model's files and, with its processor, the questions; returns its sizes."""
    key = f"{MODEL}.path"
    folder = find_model(config, report, key)
    if folder is None:
        return None
    processor = load_processor(folder, report, key)
    if processor is not None:
        check_prompts(config, report, processor)
    return read_model(folder, report, key)


def read_model(folder: Path, report: Report, key: str) -> ModelShape | None:
    """Returns the model's sizes; None, and an error, where its `config.json` makes no model."""
    with report.collecting():
        shape = read_shape(folder, key)
        report.add_row("model", shape.name, f"{shape.parameters / 1e6:,.1f} M parameters ({folder})")
        report.add_row(
            "model",
            "of these",
            f"{shape.vision_parameters / 1e6:,.1f} M in the vision tower, "
            f"{shape.block_parameters / 1e6:,.1f} M in the largest block",
        )
        return shape
    return None


def _validate_by_verl(config: DictConfig, report: Report) -> None:
    """Runs verl's own validation, which ends at its first fault: for what the checks above leave."""
    from verl.utils.config import validate_config

    reference, critic = needs_reference(config), needs_critic(config)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints advice that is not about this run
            validate_config(config=config, use_reference_policy=reference, use_critic=critic)
    except (AssertionError, ValueError, NotImplementedError, TypeError) as error:
        report.add_error(f"actor_rollout_ref: verl refuses this configuration: {' '.join(str(error).split())}")
