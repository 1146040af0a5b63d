"""Removal of imports that a training process never uses, one function a library, each for a stated version.

They act from verl's plugin on, so in every process that imports verl, and leave sandbox sessions alone.
"""

from __future__ import annotations

import sys
from pathlib import Path

ASCEND_ENGINE = "verl.checkpoint_engine.hccl_checkpoint_engine"


def skip_scikit_learn() -> None:
    """Has transformers 5.5 to 5.10 find neither scikit-learn nor scipy: a CPU second or two where vLLM is not loaded.

    It imports them at once where they are installed: `generation.candidate_generator` for one threshold of assisted
    generation, `loss.loss_for_object_detection` for detection models. Neither is used here; both packages stay
    importable by their own names.

    Raises:
        RuntimeError: transformers has no such switch (another version).
    """
    import transformers.utils as names
    import transformers.utils.import_utils as found

    for name in ("is_sklearn_available", "is_scipy_available"):
        for module in (found, names):  # defined in the first, imported by name into the second
            if not hasattr(module, name):
                raise RuntimeError(
                    f"{module.__name__} has no {name}: skip_scikit_learn is for transformers 5.5 to 5.10, "
                    "check it against the version that is installed"
                )
            setattr(module, name, _not_available)


def _not_available() -> bool:
    return False


def skip_ascend_transfer() -> None:
    """Keeps verl 0.9.1 from trying its HCCL engine where there is no Ascend device.

    `verl.checkpoint_engine` imports every engine it has, and this one imports all of vLLM before it finds no device.
    verl records the import error as it does for each engine whose library is missing.

    Raises:
        RuntimeError: verl has no such module (another version).
    """
    import verl
    from verl.utils.device import is_npu_available

    relative = Path(*ASCEND_ENGINE.split(".")[1:]).with_suffix(".py")
    if not (Path(str(verl.__file__)).parent / relative).is_file():
        raise RuntimeError(f"no module {ASCEND_ENGINE}: skip_ascend_transfer is for verl 0.9.1")
    if not is_npu_available:
        sys.modules.setdefault(ASCEND_ENGINE, None)  # type: ignore[arg-type]  # Python's own mark of "do not import"
