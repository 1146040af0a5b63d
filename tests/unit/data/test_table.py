"""The table that datasets read: one for all processes, lazily, in the order and with the choices of verl's loaders."""

from __future__ import annotations

import errno
import fcntl
import io
import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torchdata.stateful_dataloader import StatefulDataLoader
from verl.utils.dataset.dataset_utils import DatasetPadMode, SFTTensorCollator
from verl.utils.dataset.rl_dataset import collate_fn

from codedance_verl.data import table as module
from codedance_verl.data.parquet import batches, open_parquet
from codedance_verl.data.rows import Kind
from codedance_verl.data.table import StoredImage, open_table
from codedance_verl.environment.resized_images import resized_size
from codedance_verl.errors import UserError
from codedance_verl.rollout.dataset import DemonstrationDataset
from tests.unit.data.loading import dataset
from tests.unit.environment.harness import processor, tokenizer


def _png(size: tuple[int, int] = (40, 30), shade: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (shade, 90, 160)).save(buffer, "PNG")
    return buffer.getvalue()


def _questions(folder: Path, count: int, name: str = "q.parquet", words: int = 1) -> Path:
    rows = [
        {
            "data_source": "own/x",
            "prompt": [{"role": "user", "content": "<image>" + "count " * (words if index % 2 else 1)}],
            "images": [{"bytes": _png(shade=index % 256)}],
            "reward_model": {"ground_truth": str(index)},
            "extra_info": {"index": index},
        }
        for index in range(count)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / name)
    return folder / name


def _truths(found: Any) -> list[int]:
    return [int(found[index]["reward_model"]["ground_truth"]) for index in range(len(found))]


def test_rows_lie_in_batches_and_are_found_by_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_ROWS", 7)
    found = open_table([_questions(tmp_path, 20)], tmp_path / "t", Kind.QUESTIONS)
    assert [found[index].extra_info["index"] for index in (0, 6, 7, 13, 14, 19)] == [0, 6, 7, 13, 14, 19]
    image = found[13].sources[0]
    assert isinstance(image, StoredImage) and image.read_bytes() == _png(shade=13)
    assert pickle.loads(pickle.dumps(image)).read_bytes() == _png(shade=13)
    assert len(pickle.dumps(found)) < 2_000, "a worker gets the name of the table, not its rows"


def test_threads_may_read_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_ROWS", 2)
    found = open_table([_questions(tmp_path, 40)], tmp_path / "t", Kind.QUESTIONS)
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda index: found[index % 40].sources[0].read_bytes(), range(400)))
    assert read == [_png(shade=index % 40) for index in range(400)]


def test_the_table_is_written_once_and_again_when_a_file_has_changed(tmp_path: Path) -> None:
    file = _questions(tmp_path, 3)
    folder = tmp_path / "t"
    first = open_table([file], folder, Kind.QUESTIONS)
    written = Path(first.path).stat().st_mtime_ns
    assert open_table([file], folder, Kind.QUESTIONS).path == first.path
    assert Path(first.path).stat().st_mtime_ns == written
    _questions(tmp_path, 4)
    again = open_table([file], folder, Kind.QUESTIONS)
    assert again.path != first.path and (len(first), len(again)) == (3, 4)
    assert not list(folder.glob("*.partial"))


def _rows_of(file: Path, folder: Path) -> int:
    return len(open_table([file], folder, Kind.QUESTIONS))


def test_processes_that_start_together_write_one_table(tmp_path: Path) -> None:
    file = _questions(tmp_path, 50)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        lengths = pool.starmap(_rows_of, [(file, tmp_path / "t")] * 4)
    assert lengths == [50] * 4 and len(list((tmp_path / "t").glob("*.arrow"))) == 1


def test_a_folder_that_takes_no_table_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("in the way")
    with pytest.raises(UserError, match=r"data.table_dir: cannot write .*; free some space or name another folder"):
        open_table([_questions(tmp_path, 1)], tmp_path / "t", Kind.QUESTIONS)


def test_samples_are_those_that_verl_draws(tmp_path: Path) -> None:
    file = _questions(tmp_path, 30)
    assert _truths(dataset([file], tmp_path / "t", max_samples=5)) == [0, 1, 2, 3, 4]
    drawn = np.random.default_rng(7).choice(30, size=5, replace=False).tolist()
    assert _truths(dataset([file], tmp_path / "t", max_samples=5, shuffle=True, seed=7)) == drawn
    assert len(dataset([file], tmp_path / "t", max_samples=100)) == 30


def test_long_prompts_are_filtered_when_asked(tmp_path: Path) -> None:
    file = _questions(tmp_path, 6, words=300)
    kept = dataset([file], tmp_path / "t", filter_overlong_prompts=True, max_prompt_length=120)
    assert _truths(kept) == [0, 2, 4] and len(dataset([file], tmp_path / "t")) == 6


def test_a_loader_resumes_where_it_was(tmp_path: Path) -> None:
    found = dataset([_questions(tmp_path, 12)], tmp_path / "t")

    def loader() -> StatefulDataLoader[Any]:
        generator = torch.Generator().manual_seed(3)
        return StatefulDataLoader(found, 3, shuffle=True, generator=generator, collate_fn=collate_fn, num_workers=0)

    def indices(batches: Any) -> list[list[str]]:
        return [batch["index"].tolist() for batch in batches]

    whole = indices(loader())
    first = loader()
    running = iter(first)
    next(running)
    state = first.state_dict()
    resumed = loader()
    resumed.load_state_dict(state)
    assert indices(resumed) == whole[1:] and len(whole) == 4
    kept: Any = found.__getstate__()
    assert "dataframe" not in kept


def _demonstrations(folder: Path) -> list[Path]:
    def answer(text: str) -> dict[str, str]:
        return {"role": "assistant", "content": f"<answer>{text}</answer>"}

    seen = {"messages": [{"role": "user", "content": "<image>How many?"}, answer("3")], "images": [_png((9, 300))]}
    heard = {"messages": [{"role": "user", "content": "What is <video>?"}, answer("text")]}
    pq.write_table(pa.Table.from_pylist([seen]), folder / "seen.parquet")
    pq.write_table(pa.Table.from_pylist([heard]), folder / "heard.parquet")
    return [folder / "heard.parquet", folder / "seen.parquet"]


def test_demonstrations_with_and_without_images_make_one_batch(tmp_path: Path) -> None:
    found = DemonstrationDataset(
        [str(file) for file in _demonstrations(tmp_path)],
        tokenizer(),
        _sft_config(tmp_path, max_image_pixels=1_003_520),
        processor=processor("qwen2_5_vl"),
    )
    items = [found[index] for index in range(len(found))]
    assert len(items) == 2 and not items[0]["multi_modal_inputs"]
    assert "<video>" in tokenizer().decode(items[0]["input_ids"])
    assert items[1]["multi_modal_inputs"]["image_grid_thw"].shape == (1, 3)
    assert all(0 < item["loss_mask"].sum() < len(item["input_ids"]) for item in items)
    batch = SFTTensorCollator(DatasetPadMode.NO_PADDING)(items)
    assert len(batch["multi_modal_inputs"]) == 2


@pytest.mark.parametrize("pixels", [60 * 60, 100 * 100, 1_003_520])
def test_images_of_demonstrations_have_the_size_of_those_of_rollouts(tmp_path: Path, pixels: int) -> None:
    row = {"messages": [{"role": "user", "content": "<image>Which?"}, {"role": "assistant", "content": "1"}]}
    pq.write_table(pa.Table.from_pylist([{**row, "images": [_png((150, 90))]}]), tmp_path / "large.parquet")
    config = _sft_config(tmp_path, max_image_pixels=pixels)
    found = DemonstrationDataset(
        [str(tmp_path / "large.parquet")], tokenizer(), config, processor=processor("qwen2_5_vl")
    )
    shown = found._build_messages({"row": found.dataframe.iloc[0].to_dict()["row"]})[0]["content"][0]["image"]
    assert shown.size == resized_size(150, 90, pixels)


def _sft_config(folder: Path, max_image_pixels: int) -> DictConfig:
    values = {"table_dir": str(folder / "t"), "pad_mode": "no_padding", "max_length": 4_000}
    return OmegaConf.create({**values, "max_image_pixels": max_image_pixels})


def test_what_a_killed_process_left_of_a_table_is_removed(tmp_path: Path) -> None:
    table = Path(open_table([_questions(tmp_path, 2)], tmp_path / "t", Kind.QUESTIONS).path)
    table.unlink()
    left = table.with_suffix(".0123456789abcdef.partial")
    left.write_bytes(b"half a table")
    assert len(open_table([tmp_path / "q.parquet"], tmp_path / "t", Kind.QUESTIONS)) == 2
    assert not left.exists()


def test_a_file_system_without_locks_is_used_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: Any) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert len(open_table([_questions(tmp_path, 2)], tmp_path / "t", Kind.QUESTIONS)) == 2


def test_rows_that_repeat_one_image_are_read_a_few_at_a_time(tmp_path: Path) -> None:
    image = np.random.default_rng(0).bytes(1 << 20)
    rows = pa.table({"images": pa.array([image] * 300, pa.binary())})
    pq.write_table(rows, tmp_path / "same.parquet")
    sizes = [batch.num_rows for batch in batches(tmp_path / "same.parquet", open_parquet(tmp_path / "same.parquet"))]
    assert sum(sizes) == 300 and max(sizes) <= 64
