from __future__ import annotations

from pathlib import Path

import pytest

from codedance_verl.config.compose import compose_config
from codedance_verl.errors import UserError
from codedance_verl.runtime.locks import run_lock
from codedance_verl.runtime.run_folder import publish_model
from codedance_verl.sft import check, main
from recipes.cpu_demo.demo_set import DemoSizes, make_demo_data
from tests.unit.preflight.folders import make_model


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("sft")
    data = make_demo_data(folder, sizes=DemoSizes(sft=20, rl_train=1, rl_val=1, test=1, blank=0, controls=0))
    model = make_model(folder / "model")
    return {"run_dir": str(folder / "run"), "data.train_files": str(data.sft), "model.path": str(model)}


def _check(inputs: dict[str, str], **changes: str) -> None:
    values = {**inputs, **{key.replace("__", "."): value for key, value in changes.items()}}
    check(compose_config("sft", [f"{key}={value}" for key, value in values.items()]))


def test_good_inputs_pass_and_the_cpu_trains_in_fp32(inputs: dict[str, str]) -> None:
    _check(inputs)
    config = compose_config("sft", ["hardware=cpu", *(f"{key}={value}" for key, value in inputs.items())])
    assert (config.engine.dtype, config.engine.mixed_precision.param_dtype) == ("float32", "fp32")
    assert config.model.override_config.attn_implementation == "sdpa"
    assert config.trainer.device == "cpu"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__path": "null"}, r"^model.path: no value given; add model.path="),
        ({"data__train_files": "null"}, r"^data.train_files: no value given"),
        ({"model__path": "/nowhere"}, r"model.path=/nowhere: no config.json there"),
        ({"data__train_files": "/nowhere.parquet"}, r"no data file at /nowhere.parquet"),
        ({"data__train_batch_size": "32"}, r"data.train_batch_size=32: there are only 20 demonstrations"),
        ({"trainer__max_ckpt_to_keep": "1"}, r"trainer.max_ckpt_to_keep=1: must be a whole number of 2 or more"),
        (
            {"trainer__save_freq": "0"},
            r"trainer.save_freq=0: must be a whole number of 1 or more, after_each_epoch, or -1",
        ),
        ({"trainer__test_freq": "0"}, r"trainer.test_freq=0: must be a whole number of 1 or more"),
        ({"trainer__default_local_dir": "/elsewhere"}, r"trainer.default_local_dir=/elsewhere: must be .*/checkpoints"),
        ({"trainer__total_training_steps": "0"}, r"trainer.total_training_steps=0: must be a whole number"),
        (
            {"data__max_image_pixels": "100"},
            r"data.max_image_pixels=100: must be a whole number from 3136",
        ),
        ({"data__max_image_pixels": "many"}, r"data.max_image_pixels=many: must be a whole number"),
        ({"trainer__total_training_steps": "null"}, r"trainer.total_training_steps=None: must be a whole number"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_a_cure(
    inputs: dict[str, str], changes: dict[str, str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        _check(inputs, **changes)


def test_questions_for_rl_are_no_demonstrations(inputs: dict[str, str]) -> None:
    questions = Path(inputs["data.train_files"]).with_name("rl_train.parquet")
    with pytest.raises(UserError, match="holds no demonstrations for SFT: it has no column messages"):
        _check(inputs, data__train_files=str(questions))


def test_the_command_ends_with_one_line_and_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model.path=/nowhere", "run_dir=/tmp/unused", "optim.lrr=1"]) == 2
    assert (
        capsys.readouterr().err
        == "error: optim.lrr: unknown key; `--cfg job` prints every key there is; did you mean optim.lr?\n"
    )


@pytest.mark.parametrize("rank", ["0", "1"])
def test_of_several_ranks_the_first_one_writes(
    tmp_path: Path,
    inputs: dict[str, str],
    rank: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of a run that had its last step before."""
    monkeypatch.setenv("RANK", rank)
    source = tmp_path / "checkpoints" / "global_step_1" / "huggingface"
    source.mkdir(parents=True)
    (tmp_path / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("1")
    arguments = {**inputs, "run_dir": str(tmp_path), "trainer.total_training_steps": "1"}
    assert main([f"{key}={value}" for key, value in arguments.items()]) == 0
    said = capsys.readouterr().out
    assert (tmp_path / "model").is_dir() == (rank == "0") == ("trained model: " in said)


@pytest.mark.parametrize(("mode", "trains"), [("auto", False), ("disable", True)])
def test_a_run_that_is_done_trains_only_where_it_is_to_begin_anew(
    tmp_path: Path, inputs: dict[str, str], mode: str, trains: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "TENSORBOARD_DIR", "VERL_FILE_LOGGER_PATH", "TRANSFORMERS_VERBOSITY"):
        monkeypatch.setenv(name, "0")  # what the run sets ends with the test
    trained: list[object] = []
    monkeypatch.setattr("verl.trainer.sft_trainer.run_sft", trained.append)
    (tmp_path / "checkpoints" / "global_step_1" / "huggingface").mkdir(parents=True)
    (tmp_path / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("1")
    changed = {"run_dir": str(tmp_path), "trainer.total_training_steps": "1", "trainer.resume_mode": mode}
    assert main([f"{key}={value}" for key, value in {**inputs, **changed}.items()]) == 0
    assert bool(trained) == trains


def test_the_model_of_the_last_checkpoint_is_exported(tmp_path: Path) -> None:
    for step in (4, 8):
        folder = tmp_path / "checkpoints" / f"global_step_{step}" / "huggingface"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(str(step))
    (tmp_path / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("8")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "left_over").touch()
    model = publish_model(tmp_path)
    assert [path.name for path in model.iterdir()] == ["config.json"]
    assert (model / "config.json").read_text() == "8"


def test_two_runs_do_not_share_a_folder(
    tmp_path: Path, inputs: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with run_lock(tmp_path):
        assert main([f"{key}={value}" for key, value in {**inputs, "run_dir": str(tmp_path)}.items()]) == 2
    assert capsys.readouterr().err.startswith(f"error: run_dir={tmp_path}: another run is in progress there; ")
    assert not (tmp_path / "config.yaml").exists()
