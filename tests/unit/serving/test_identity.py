"""Identity of a served model: what decides about replies changes it, what does not leaves it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from codedance_verl.environment.config import EnvironmentConfig
from codedance_verl.serving.identity import BLOCK_BYTES, BLOCKS, identity, processing_sha256, prompt_of, weights_sha256
from codedance_verl.serving.settings import Settings
from tests.unit.serving.chats import MODEL, ScriptedEngine, ScriptedPool, running, service_of


def settings_of(**environment: Any) -> Settings:
    return service_of(ScriptedEngine(), ScriptedPool(), environment).settings


def folder_of(path: Path, weights: bytes) -> Path:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text("{}")
    (path / "model-1.safetensors").write_bytes(weights)
    return path


def test_what_decides_about_replies_is_in_it() -> None:
    tokens = ScriptedEngine().tokens
    ours = identity(settings_of(), tokens)
    assert ours["model"] == {
        "name": MODEL,
        "type": "qwen2_5_vl",
        "dtype": "auto",
        "config_sha256": None,
        "processing_sha256": None,
        "weights_sha256": None,
    }
    assert ours["limits"]["environment"]["max_turns"] == 6
    assert ours["limits"]["sandbox"]["cell_timeout_s"] == 15.0
    assert (ours["limits"]["response_tokens"], ours["limits"]["max_model_len"]) == (1_000, 2_000)
    for changed in ({"max_turns": 3}, {"max_observation_chars": 500}, {"format": "fence"}, {"add_system_prompt": True}):
        theirs = identity(settings_of(**changed), tokens)
        assert (theirs["prompt"], theirs["limits"]) != (ours["prompt"], ours["limits"]), changed
    assert identity(settings_of(sandbox_retries=3, max_in_flight=2), tokens) == ours
    hotter = replace(settings_of(), serving=settings_of().serving.replace(code_temperature=0.5))
    assert identity(hotter, tokens)["limits"] != ours["limits"]


def test_formats_have_system_messages_of_their_own() -> None:
    digests = {prompt_of(EnvironmentConfig(format=name))["system_prompt_sha256"] for name in ("code", "fence")}
    assert len(digests) == 2 and None not in digests
    assert prompt_of(EnvironmentConfig(add_system_prompt=False))["system_prompt_sha256"] is None


def test_the_digest_of_weights_tells_files_apart(tmp_path: Path) -> None:
    small = folder_of(tmp_path / "small", b"abc")
    assert weights_sha256(small) == weights_sha256(folder_of(tmp_path / "copy", b"abc"))
    assert weights_sha256(small) != weights_sha256(folder_of(tmp_path / "other", b"abd"))
    assert weights_sha256(tmp_path) is None
    large = bytearray(BLOCKS * BLOCK_BYTES * 2)
    before = weights_sha256(folder_of(tmp_path / "large", bytes(large)))
    for place in (0, len(large) - 1):
        large[place] = 1
        assert weights_sha256(folder_of(tmp_path / "large", bytes(large))) != before, place
        large[place] = 0
    settings = replace(settings_of(), model=str(small))
    stated = identity(settings, ScriptedEngine().tokens)["model"]
    assert stated["weights_sha256"] == weights_sha256(small) and len(stated["config_sha256"]) == 64


@pytest.mark.parametrize("name", ["preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "merges.txt"])
def test_files_of_tokenizer_and_image_processor_are_told_apart(name: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "model", b"abc")
    assert processing_sha256(folder) is None
    (folder / name).write_text("{}")
    first = processing_sha256(folder)
    settings = replace(settings_of(), model=str(folder))
    assert identity(settings, ScriptedEngine().tokens)["model"]["processing_sha256"] == first is not None
    (folder / name).write_text('{"max_pixels": 1}')
    assert processing_sha256(folder) != first


def test_the_server_states_it() -> None:
    async def asked() -> tuple[Any, int]:
        async with running("secret") as server, aiohttp.ClientSession() as session:
            url = f"{server.url}/codedance"
            async with session.get(url) as refused:
                status = refused.status
            async with session.get(url, headers={"Authorization": "Bearer secret"}) as reply:
                return await reply.json(), status

    stated, refused = asyncio.run(asked())
    assert stated == identity(settings_of(), ScriptedEngine().tokens)
    assert refused == 401
