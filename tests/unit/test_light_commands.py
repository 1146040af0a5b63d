"""Modules that light commands leave alone: each takes a tenth of a second to many seconds to import."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from codedance_verl.data.rows import DEFAULT_KEYS
from codedance_verl.datasets.cli import check

REPOSITORY = Path(__file__).resolve().parents[2]

ARRAYS = ("numpy", "pandas", "pyarrow", "scipy", "sklearn", "matplotlib", "PIL", "datasets")
TRAINING = ("torch", "transformers", "vllm", "verl", "ray")
CONFIGURATION = ("hydra", "omegaconf")
NETWORK = ("aiohttp", "fastapi", "openai", "docker")

HELPS = {
    "": (*ARRAYS, *TRAINING, *CONFIGURATION, *NETWORK),
    "doctor": (*ARRAYS, *TRAINING, *CONFIGURATION, *NETWORK),
    "chat": (*ARRAYS, *TRAINING, *CONFIGURATION, *NETWORK),
    "serve": (*ARRAYS, *TRAINING, *CONFIGURATION, *NETWORK),
    "dashboards": (*ARRAYS, *TRAINING, *CONFIGURATION, *NETWORK),
    "view": (*ARRAYS, *TRAINING, *CONFIGURATION, *NETWORK),
    "plot": (*ARRAYS, *TRAINING, *CONFIGURATION, *NETWORK),
    "export": (*ARRAYS, *TRAINING, *NETWORK),
    "data audit": (*ARRAYS, *TRAINING, *CONFIGURATION, *NETWORK),
    "data filter": (*ARRAYS, *TRAINING, *CONFIGURATION, *NETWORK),
    "data check": (*ARRAYS, *TRAINING, *CONFIGURATION, *NETWORK),
    "data generate": (*ARRAYS, *TRAINING, *CONFIGURATION, *NETWORK),
    "data make": (*ARRAYS, *TRAINING, *CONFIGURATION, *NETWORK),
    "reward explain": (*ARRAYS, *TRAINING, "hydra", *NETWORK),
    "cluster status": (*ARRAYS, *TRAINING, "hydra"),
    "sandbox build": (*ARRAYS, *TRAINING, "hydra"),
    "sandbox run": (*ARRAYS, *TRAINING, "hydra"),
    "sandbox selfcheck": (*ARRAYS, *TRAINING, "hydra"),
}
"""Commands, and what showing their help does not import."""

_CLI = """
import json, sys
from codedance_verl.cli import main
absent, *arguments = json.loads(sys.argv[1])
try:
    main(arguments)
except SystemExit as end:
    assert not end.code, end.code
print(json.dumps([name for name in absent if name in sys.modules]))
"""

_MAIN = """
import importlib, json, sys
absent, module, *arguments = json.loads(sys.argv[1])
main = importlib.import_module(module).main
assert main(arguments=arguments) == 0
print(json.dumps([name for name in absent if name in sys.modules]))
"""


def _imported(code: str, *arguments: object) -> object:
    command = [sys.executable, "-c", code, json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("command", HELPS)
def test_help_imports_nothing_heavy(command: str) -> None:
    assert _imported(_CLI, HELPS[command], *command.split(), "--help") == []


@pytest.mark.parametrize("module", ["train", "evaluate", "sft"])
def test_the_help_of_a_main_imports_no_training(module: str) -> None:
    assert _imported(_MAIN, (*ARRAYS, *TRAINING), f"codedance_verl.{module}", "--help") == []


def test_composing_a_configuration_imports_no_training() -> None:
    arguments = ("recipe=cpu_demo", "hardware=cpu", "--cfg", "job")
    assert _imported(_MAIN, (*ARRAYS, *TRAINING), "codedance_verl.train", *arguments) == []


def test_an_unknown_key_is_refused_before_training_is_imported() -> None:
    code = _MAIN.replace("== 0", "== 2")
    arguments = ("recipe=cpu_demo", "hardware=cpu", "run_dir=nowhere", "no_such_key=1")
    assert _imported(code, (*ARRAYS, *TRAINING), "codedance_verl.train", *arguments) == []


def test_checking_data_imports_no_training(tmp_path: Path) -> None:
    code = _CLI.replace("assert not end.code, end.code", "pass")  # there is no such file
    assert _imported(code, TRAINING, "data", "check", str(tmp_path / "none.parquet")) == []


def test_the_columns_of_a_check_are_those_of_the_data_sets() -> None:
    defaults = check.__defaults__
    assert defaults is not None
    assert defaults[-2:] == (DEFAULT_KEYS.prompt, DEFAULT_KEYS.images)
