"""One evaluation over files of many writers: each record's images arrive, the same for the model and for its code."""

from __future__ import annotations

import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from codedance_verl.data.parquet import write_rows
from codedance_verl.data.schema import SFT_SCHEMA
from recipes.cpu_demo.tiny_vlm import build_tiny_model
from tests.e2e.conftest import REPOSITORY, run_main
from tests.e2e.runs import rollout_files, rollouts_in

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(2400)]

POLARS = REPOSITORY / "tests" / "data" / "polars"


def _encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def _noise(size: tuple[int, int] = (60, 40), shade: int = 0) -> Image.Image:
    return Image.effect_noise(size, 80).convert("RGB").point(lambda value: (value + shade) % 256)


def _turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return _encoded(_noise((80, 40)), "JPEG", exif=exif)


def _clear() -> bytes:
    image = _noise().convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return _encoded(image)


def _row(name: str, images: list[Any], **changes: Any) -> dict[str, Any]:
    row = {
        "data_source": f"mixture/{name}",
        "prompt": [{"role": "user", "content": "<image>" * len(images) + "How many?"}],
        "images": images,
        "ability": "count",
        "reward_model": {"style": "rule", "ground_truth": "4"},
        "extra_info": {"index": 0, "split": "test", "question": "How many?"},
    }
    return {**row, **changes}


def _write(folder: Path, name: str, *rows: dict[str, Any]) -> Path:
    pq.write_table(pa.Table.from_pylist(list(rows)), folder / f"{name}.parquet")
    return folder / f"{name}.parquet"


def _mixture(folder: Path) -> list[Path]:
    """Ten records with twelve images in eight files."""
    raw = _encoded(_noise())
    tools = {"execute_python_code": {"create_kwargs": {"image": {"bytes": raw, "path": None}}}}
    system = {"role": "system", "content": "Think."}
    published = _row("published", [raw], reward_model={"ground_truth": "4", "style": "model"})
    published["messages"] = [system, *published.pop("prompt")]
    published["extra_info"] = {"index": 1, "need_tools_kwargs": True, "tools_kwargs": tools, "question": "How many?"}
    deep_eyes = _row("deepeyes", [{"bytes": _encoded(_noise()), "path": None}], env_name="visual_toolbox_v2")
    deep_eyes |= {"extra_info": {"index": "sa-1"}, "reward_model": {"ground_truth": "4", "style": "qa"}}
    (folder / "mit leerraum").mkdir()
    (folder / "mit leerraum" / "图.png").write_bytes(_encoded(_noise()))
    paths = _row("paths", [{"path": "mit leerraum/图.png"}], agent_name="tool_agent", session_id="7")
    two = _row(
        "two", [{"bytes": _encoded(_noise()), "path": None}, {"bytes": _encoded(_noise((20, 90))), "path": None}]
    )
    kinds = [_row(name, [{"bytes": data, "path": None}]) for name, data in (("rgba", _clear()), ("exif", _turned()))]
    pd.DataFrame([two, *kinds]).to_parquet(folder / "pandas.parquet")
    column = datasets.Dataset.from_list([_row("hf", [{"bytes": _clear(), "path": None}])])
    column.cast_column("images", datasets.Sequence(datasets.Image())).to_parquet(folder / "hf.parquet")
    shutil.copy(POLARS / "structs.parquet", folder)
    files = [_write(folder, "published", published), _write(folder, "deepeyes", deep_eyes), _write(folder, "p", paths)]
    return [*files, *(folder / f"{name}.parquet" for name in ("pandas", "hf", "structs"))]


def _model(folder: Path) -> Path:
    talk = [{"role": "user", "content": "<image>How many?"}, {"role": "assistant", "content": "<answer>4</answer>"}]
    row = {"messages": talk, "images": [{"bytes": _encoded(_noise())}]}
    write_rows(folder / "sft.parquet", [row] * 50, SFT_SCHEMA)
    return build_tiny_model(folder / "sft.parquet", folder / "tiny")


def test_every_image_of_every_writer_arrives(
    sandbox_image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, run_dir = _mixture(tmp_path), tmp_path / "run"
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
    done = run_main(
        "codedance_verl.evaluate",
        "recipe=cpu_demo",
        "hardware=cpu",
        "sandbox.backend=docker",
        "sandbox.containers=1",
        "data.train_batch_size=8",
        "actor_rollout_ref.actor.ppo_mini_batch_size=8",
        "data.val_batch_size=64",
        "time_limit_s=850",
        f"run_dir={run_dir}",
        f"data.val_files=[{','.join(str(file) for file in files)}]",
        f"actor_rollout_ref.model.path={_model(tmp_path)}",
        "actor_rollout_ref.rollout.agent.agent_loop_manager_class=benchmarks.audited_rollouts.AuditingManager",
        timeout_s=900,
    )
    assert done.returncode == 0
    logged = {
        rollout["record_id"]: [image["pixels_sha256"] for image in rollout["input_images"]]
        for rollout in rollouts_in(rollout_files(run_dir, "val"))
    }
    lines = [json.loads(line) for line in (run_dir / "code_images.jsonl").read_text().splitlines()]
    got = {line["record_id"]: line["code"] for line in lines}
    assert logged == got and all(line["status"] == "ok" for line in lines)
    assert sorted(map(len, logged.values())) == [1] * 9 + [2]
    names = {"published/1", "deepeyes/sa-1", "two/0", "rgba/0", "exif/0", "hf/0", "paths/0"}
    assert {f"mixture/{name}" for name in names} | {f"own/polars/{index}" for index in range(3)} == set(logged)
