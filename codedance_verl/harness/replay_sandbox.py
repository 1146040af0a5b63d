"""Settings of the sandbox in which calls on record run again: what their code could notice is as it was."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from codedance_verl.data.conditions import Control
from codedance_verl.errors import UserError
from codedance_verl.harness.config import BLANK
from codedance_verl.harness.runs_beside import control_of
from codedance_verl.records.key import Json, Key
from codedance_verl.records.store import KEY_FILE
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.serving.settings import OF_THE_SANDBOX

WITHOUT_EVIDENCE = (BLANK, Control.GREY_OBSERVATIONS)
"""Controls under which the model did not see the evidence, in the question or in what its code showed."""


def recorded_limits(key: Key) -> dict[str, Json]:
    """Settings of the sandbox that a key of replies states; empty where it states none."""
    limits = next((part.value for part in key.parts if part.name == "limits"), None)
    sandbox = limits.get("sandbox") if isinstance(limits, Mapping) else None
    return {name: sandbox[name] for name in OF_THE_SANDBOX if name in sandbox} if isinstance(sandbox, Mapping) else {}


def replay_sandbox(given: Mapping[str, Any], key: Key, folder: Path) -> SandboxConfig:
    """Settings of the replays.

    Args:
        given: settings of this machine, as backend and number of containers; those that the key states give way.
        key: of the replies.
        folder: of the records, for messages.

    Raises:
        UserError: the replies were made under a control that hides the evidence, or a setting is impossible.
    """
    if (control := control_of(key)) in WITHOUT_EVIDENCE:
        raise UserError(
            f"{folder}: its replies were made under the control {control}, without the evidence that replays alter; "
            "name the output folder of a run without it"
        )
    if limits := recorded_limits(key):
        SandboxConfig.from_mapping(limits, f"{folder / KEY_FILE}: limits.sandbox")  # to name the file that is at fault
    return SandboxConfig.from_mapping({**given, **limits})
