"""Demonstrations of published sets, from the file to the tokens that SFT trains on."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from codedance_verl.datasets.commands import Options, convert
from codedance_verl.rollout.dataset import DemonstrationDataset
from tests.unit.datasets.test_converters import DEMONSTRATIONS
from tests.unit.environment.harness import processor, tokenizer


@pytest.mark.parametrize("name", DEMONSTRATIONS)
def test_the_replies_alone_are_trained_on(name: str, tmp_path: Path) -> None:
    out = tmp_path / "made" / "out.parquet"
    convert([DEMONSTRATIONS[name](tmp_path)], Options(out), name.split(",")[0])
    values = {"table_dir": str(tmp_path / "t"), "pad_mode": "no_padding", "max_length": 4_000}
    config = OmegaConf.create({**values, "max_image_pixels": 1_003_520})
    found = DemonstrationDataset([str(out)], tokenizer(), config, processor=processor("qwen2_5_vl"))
    item, messages = found[0], found.messages[0].messages
    trained = tokenizer().decode(item["input_ids"][item["loss_mask"].bool()])
    for message in messages:
        assert (message.content.strip() in trained) == (message.role == "assistant")
    assert ("image_grid_thw" in item["multi_modal_inputs"]) == bool(found.messages[0].sources)
