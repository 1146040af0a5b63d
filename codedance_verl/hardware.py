"""Which hardware this machine offers: `hardware=auto` on the command line becomes `cpu` or `gpu` here."""

from __future__ import annotations

from codedance_verl.errors import UserError

CHOICES = ("auto", "cpu", "gpu")


def detect() -> str:
    """`gpu` where torch finds a CUDA device, else `cpu`."""
    import torch

    return "gpu" if torch.cuda.is_available() else "cpu"


def resolve(overrides: list[str]) -> list[str]:
    """Replace `hardware=auto`, also where nothing was said, by what this machine has.

    Raises:
        UserError: another value, or a GPU was asked for and there is none.
    """
    given = [override for override in overrides if override.startswith("hardware=")]
    choice = given[-1].split("=", 1)[1] if given else "auto"
    if choice not in CHOICES:
        raise UserError(f"hardware={choice}: must be one of {', '.join(CHOICES)}")
    found = detect()
    if choice == "gpu" and found != "gpu":
        raise UserError(
            "hardware=gpu: torch finds no CUDA device; use hardware=cpu, or install requirements/gpu.txt "
            "and check `nvidia-smi`"
        )
    rest = [override for override in overrides if not override.startswith("hardware=")]
    return [*rest, f"hardware={found if choice == 'auto' else choice}"]
