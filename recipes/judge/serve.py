"""Serves a judge: `python -m recipes.judge.serve --model Qwen/Qwen2.5-72B-Instruct`. Ends with Ctrl-C.

It becomes vLLM's OpenAI-compatible server, on loopback by default, with what a CPU needs where there is no
GPU. What stands behind `--` goes to vLLM as it is.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from codedance_verl.config import hardware
from codedance_verl.errors import UserError

KEY_VARIABLE = "VLLM_API_KEY"
"""Where vLLM reads the key from that clients must send."""

# As in conf/hardware/cpu.yaml.
CPU_ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "TORCHDYNAMO_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
CPU_ARGUMENTS = (
    "--dtype=float32",
    "--enforce-eager",
    "--distributed-executor-backend=vllm.v1.executor.uniproc_executor.UniProcExecutor",
)


@dataclass(frozen=True)
class Options:
    """Model to serve, and its address. `gpus`: how many one replica is spread over."""

    model: str
    name: str = "judge"
    host: str = "127.0.0.1"
    port: int = 8200
    gpus: int = 1
    max_model_len: int = 8192
    device: str = "gpu"
    more: tuple[str, ...] = ()


def main(arguments: Sequence[str] | None = None) -> int:
    """Replaces this process by the server; returns only where that is refused."""
    try:
        options = parse(sys.argv[1:] if arguments is None else arguments)
        environment = server_environment(options, os.environ)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"train with: 'grading.judge.endpoints=[{base_url(options)}]' grading.judge.model={options.name}", flush=True)
    command = server_command(options)
    return os.execve(command[0], command, environment)


def parse(arguments: Sequence[str]) -> Options:
    """Options from the command line."""
    parser = argparse.ArgumentParser(prog="python -m recipes.judge.serve", description="Serve a judge with vLLM.")
    parser.add_argument("--model", required=True, help="Hugging Face name or folder")
    parser.add_argument("--name", default=Options.name, help="name that clients use (grading.judge.model)")
    parser.add_argument("--host", default=Options.host, help="address to listen on")
    parser.add_argument("--port", type=int, default=Options.port)
    parser.add_argument("--gpus", type=int, default=Options.gpus, help="GPUs that the model is spread over")
    parser.add_argument("--max-model-len", type=int, default=Options.max_model_len, help="tokens, prompt and reply")
    parser.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto")
    own, more = _split(list(arguments))
    given = parser.parse_args(own)
    device = hardware.detect() if given.device == "auto" else given.device
    return Options(**{**vars(given), "device": device, "more": tuple(more)})


def server_command(options: Options) -> list[str]:
    """vLLM's server as a command."""
    command = [sys.executable, "-m", "recipes.judge.vllm_cli", "serve", options.model]
    command += [f"--served-model-name={options.name}", f"--host={options.host}", f"--port={options.port}"]
    command += [f"--max-model-len={options.max_model_len}"]
    command += CPU_ARGUMENTS if options.device == "cpu" else [f"--tensor-parallel-size={options.gpus}"]
    return [*command, *options.more]


def server_environment(options: Options, environment: Mapping[str, str]) -> dict[str, str]:
    """The server's environment.

    Raises:
        UserError: it would be open to other machines without a key.
    """
    if not _is_loopback(options.host) and not environment.get(KEY_VARIABLE):
        raise UserError(
            f"--host {options.host}: other machines could use the judge; set {KEY_VARIABLE} to a secret, and "
            "grading.judge.api_key_env to the variable that holds it where rollout workers run"
        )
    return {**(CPU_ENVIRONMENT if options.device == "cpu" else {}), **environment}


def base_url(options: Options) -> str:
    """Entry for `grading.judge.endpoints`."""
    host = "127.0.0.1" if options.host in ("0.0.0.0", "::") else options.host
    return f"http://{f'[{host}]' if ':' in host else host}:{options.port}/v1"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    if "--" not in arguments:
        return arguments, []
    place = arguments.index("--")
    return arguments[:place], arguments[place + 1 :]


if __name__ == "__main__":
    sys.exit(main())
