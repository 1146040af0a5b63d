"""Checks of the attention that is asked for: flash-attn has no wheel on the package index, and may be missing.

transformers refuses `flash_attention_2` without it when a model is made; with `use_remove_padding` verl 0.9.1 calls
flash-attn's kernels whatever the attention is (`verl/models/transformers/monkey_patch.py`). Both happen in the workers,
minutes after the start.
"""

from __future__ import annotations

import functools
import subprocess
import sys

from omegaconf import DictConfig

from codedance_verl.preflight.report import Report, at, joins_cluster
from codedance_verl.preflight.settings import MODEL

FLASH = "flash_attention_2"
IMPORT_SECONDS = 180.0


def check_attention(config: DictConfig, report: Report, model: str = MODEL) -> None:
    """Refuses what needs flash-attn where it cannot be imported.

    A dry run on a machine without a GPU, and a run that joins a cluster, report only what is needed: their GPUs are
    elsewhere, and so is flash-attn.

    Args:
        config: of RL training, an evaluation or SFT.
        report: gets facts and errors.
        model: the key of the model's node.
    """
    asked = asked_for(config, model)
    if not asked:
        report.add_row("devices", "flash-attn", "not asked for")
        return
    cuda = at(config, "trainer.device") == "cuda"
    if cuda and (joins_cluster(config) or (report.dry and not _has_gpu())):
        report.add_row("devices", "flash-attn", "needed on the nodes with GPUs; not checked here")
        return
    reason = missing() if cuda else "it needs a GPU"
    report.add_row("devices", "flash-attn", reason or "can be imported")
    for key, value in asked.items() if reason else ():
        report.add_error(f"{key}={value}: needs flash-attn ({reason}); {cure(model, cuda)}")


def cure(model: str = MODEL, cuda: bool = True) -> str:
    """Returns what to do without flash-attn, as the end of an error line."""
    without = f"{model}.override_config.attn_implementation=sdpa {model}.use_remove_padding=false"
    return f"`make setup` installs it; without it set {without}" if cuda else f"set {without}"


def asked_for(config: DictConfig, model: str = MODEL) -> dict[str, str]:
    """Returns the keys that need flash-attn, and their values."""
    padding, attention = f"{model}.use_remove_padding", f"{model}.override_config.attn_implementation"
    found = {}
    if at(config, attention) == FLASH:
        found[attention] = FLASH
    if at(config, padding) is True:
        found[padding] = "true"
    return found


@functools.cache
def missing() -> str:
    """Returns the reason why flash-attn cannot be imported, empty where it can."""
    # in a process of its own: a wheel built for another torch may crash the interpreter
    command = [sys.executable, "-c", "import flash_attn"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=IMPORT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"its import has not ended in {IMPORT_SECONDS:g} s"
    if done.returncode == 0:
        return ""
    return (done.stderr.strip().splitlines() or [f"its import ended with code {done.returncode}"])[-1]


def _has_gpu() -> bool:
    import torch

    return bool(torch.cuda.is_available())
