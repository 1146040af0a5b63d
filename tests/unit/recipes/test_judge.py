from __future__ import annotations

import pytest

from codedance_verl.errors import UserError
from codedance_verl.grading.judge.config import JudgeConfig
from recipes.judge.serve import Options, base_url, main, parse, server_command, server_environment


def test_it_serves_on_loopback_unless_told_otherwise() -> None:
    options = parse(["--model", "some/model", "--device", "gpu", "--gpus", "4"])
    command = server_command(options)
    assert "--host=127.0.0.1" in command and "--tensor-parallel-size=4" in command and "some/model" in command
    assert JudgeConfig.from_mapping({"endpoints": [base_url(options)], "model": options.name}).endpoints


def test_on_a_cpu_it_gets_what_vllm_needs_there() -> None:
    options = parse(["--model", "m", "--device", "cpu", "--", "--max-num-seqs", "4"])
    assert {"--dtype=float32", "--enforce-eager"} < set(server_command(options))
    assert server_command(options)[-2:] == ["--max-num-seqs", "4"]
    environment = server_environment(options, {"VLLM_CPU_KVCACHE_SPACE": "8"})
    assert environment["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    assert environment["VLLM_CPU_KVCACHE_SPACE"] == "8", "what the user sets holds"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.5", "judge.example"])
def test_other_machines_need_a_key(
    host: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="VLLM_API_KEY"):
        server_environment(Options(model="m", host=host), {})
    assert server_environment(Options(model="m", host=host), {"VLLM_API_KEY": "x"})["VLLM_API_KEY"] == "x"
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    assert main(["--model", "m", "--device", "cpu", "--host", host]) == 2
    assert capsys.readouterr().err.startswith(f"error: --host {host}: ")


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8200/v1"),
        ("0.0.0.0", "http://127.0.0.1:8200/v1"),
        ("::1", "http://[::1]:8200/v1"),
    ],
)
def test_the_address_to_train_with(host: str, url: str) -> None:
    assert base_url(Options(model="m", host=host)) == url
