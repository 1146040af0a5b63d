"""Each mistake a user can make before a run starts ends with one line that names the cause and the cure."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from omegaconf import DictConfig

from codedance_verl.config.compose import compose_config
from codedance_verl.errors import UserError
from codedance_verl.grading import GradingConfig
from codedance_verl.preflight.checks import check, check_output_folder, run_checks
from codedance_verl.runtime.checkpoints import seal
from tests.unit.isolated.functions import on_path
from tests.unit.preflight.folders import make_model, row, write

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def configure(model: Path, tmp_path: Path) -> Callable[..., DictConfig]:
    """Composes a run on the tiny model and this data file."""

    def composed(train: Path, *overrides: str) -> DictConfig:
        return compose_config(
            "train",
            [
                "hardware=cpu",
                "recipe=cpu_demo",
                "sandbox.backend=process",
                f"run_dir={tmp_path / 'run'}",
                "data.train_batch_size=2",
                "actor_rollout_ref.actor.ppo_mini_batch_size=2",
                "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=2",
                "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=2",
                f"data.train_files={train}",
                f"data.val_files={train}",
                f"actor_rollout_ref.model.path={model}",
                *overrides,
            ],
        )

    return composed


def test_good_records_pass(configure: Callable[..., DictConfig], tmp_path: Path) -> None:
    check(configure(write(tmp_path / "train.parquet", [row(0), row(1)])))


@pytest.mark.parametrize(
    ("images", "cause"),
    [
        ([], "no image"),
        ([{"bytes": b"\x89PNG\r\n\x1a\n broken", "path": None}], "image"),
        ([{"bytes": None, "path": "gone.png"}], r"gone\.png"),
    ],
    ids=["no image", "broken PNG", "missing file"],
)
def test_a_bad_record_names_file_row_and_cure(
    images: list[dict[str, Any]], cause: str, tmp_path: Path, configure: Callable[..., DictConfig]
) -> None:
    train = write(tmp_path / "train.parquet", [row(0), row(1, images)])
    with pytest.raises(UserError, match=rf"train\.parquet row 1: .*{cause}.*skip_bad_records=true"):
        check(configure(train))


def test_interventions_are_for_evaluation_alone(configure: Callable[..., DictConfig], tmp_path: Path) -> None:
    rows = [row(0), row(1)]
    stated = {"variant": "off", "control": "no_tools"}
    controlled = [{**one, "extra_info": {**one["extra_info"], **stated}} for one in rows]
    train, test = write(tmp_path / "train.parquet", rows), write(tmp_path / "test.parquet", controlled)
    check(configure(train, f"data.val_files={test}"))
    told = r"^data\.train_files: test\.parquet row 0: extra_info\.control is no_tools, which is for evaluation; move"
    with pytest.raises(UserError, match=told):
        check(configure(test, f"data.val_files={train}"))


def test_bad_records_are_left_out_and_named_only_when_asked(
    configure: Callable[..., DictConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = write(tmp_path / "train.parquet", [row(0), row(1, []), row(2)])
    config = configure(train, "skip_bad_records=true")
    check(config)
    assert "skipped: train.parquet row 1" in capsys.readouterr().out
    (used,) = config.data.train_files
    assert [row["extra_info"]["index"] for row in pq.read_table(used).to_pylist()] == [0, 2]


def test_a_missing_data_file_says_how_to_make_one(configure: Callable[..., DictConfig], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no data file at .*codedance data make"):
        check(configure(tmp_path / "train.parquet"))


def test_a_model_folder_without_a_model_is_named(configure: Callable[..., DictConfig], tmp_path: Path) -> None:
    train = write(tmp_path / "train.parquet", [row(0)])
    with pytest.raises(UserError, match=r"actor_rollout_ref\.model\.path=.*no config\.json there"):
        check(configure(train, f"actor_rollout_ref.model.path={tmp_path}/nothing"))


def test_a_batch_that_mini_batches_do_not_divide_is_named(configure: Callable[..., DictConfig], tmp_path: Path) -> None:
    train = write(tmp_path / "train.parquet", [row(0)])
    with pytest.raises(UserError, match=r"data\.train_batch_size=33: must be a multiple of .*ppo_mini_batch_size=2"):
        check(configure(train, "data.train_batch_size=33"))


def test_no_engine_where_docker_was_asked_for_names_the_cure(
    configure: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    train = write(tmp_path / "train.parquet", [row(0)])
    with pytest.raises(UserError, match=r"no Docker engine answers at DOCKER_HOST=.*start it or unset it"):
        check(configure(train, "sandbox.backend=docker"))


def test_a_full_disk_is_named_with_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codedance_verl.preflight.files.shutil.disk_usage", lambda _: Usage(100, 97, 3 << 20))
    with pytest.raises(UserError, match=r"3 MiB free, at least 1024 MiB are needed .*free some space"):
        check_output_folder(tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/run: cannot be written \(Not a directory\)"):
        check_output_folder(tmp_path / "file" / "run")


def _openrow(style: str) -> dict[str, Any]:
    return {**row(0), "reward_model": {"style": style, "ground_truth": "riding a bicycle"}}


def test_a_record_that_needs_a_judge_where_there_is_none_is_named(
    configure: Callable[..., DictConfig], tmp_path: Path
) -> None:
    train = write(tmp_path / "train.parquet", [row(0), _openrow("model")])
    with pytest.raises(UserError, match=r"train\.parquet row 1: its answer needs a judge .*grading\.open_answers=text"):
        check(configure(train))
    check(configure(train, "grading.open_answers=text"))


@pytest.mark.parametrize("where", ["prompt", "extra_info"])
def test_a_letter_with_its_text_needs_no_judge_where_the_question_lists_options(
    configure: Callable[..., DictConfig], tmp_path: Path, where: str
) -> None:
    record = {**row(0), "reward_model": {"style": "model", "ground_truth": "B. red"}}
    with pytest.raises(UserError, match=r"row 1: its answer needs a judge"):
        check(configure(write(tmp_path / "train.parquet", [row(0), record])))
    question = "Which colour? A. blue B. red"
    told = row(0, question=question) if where == "prompt" else {"extra_info": {"index": 0, "question": question}}
    check(configure(write(tmp_path / "train.parquet", [row(0), {**record, where: told[where]}])))


def test_a_judge_that_does_not_answer_is_named(configure: Callable[..., DictConfig], tmp_path: Path) -> None:
    train = write(tmp_path / "train.parquet", [_openrow("model")])
    judge = ("grading.judge.endpoints=[http://127.0.0.1:9/v1]", "grading.judge.model=judge")
    with pytest.raises(UserError, match=r"grading\.judge\.endpoints: none answers; http://127\.0\.0\.1:9/v1: does not"):
        check(configure(train, *judge))


def test_a_file_that_is_none_of_records_is_told_once(configure: Callable[..., DictConfig], tmp_path: Path) -> None:
    damaged = tmp_path / "train.parquet"
    damaged.write_text("hello")
    with pytest.raises(UserError) as raised:
        check(configure(damaged))
    told = str(raised.value).splitlines()
    assert [line.split(":")[0] for line in told] == ["data.train_files", "data.val_files"], told
    assert "is not a readable parquet file" in told[0]


def test_a_data_source_has_a_tolerance_of_its_own(configure: Callable[..., DictConfig], tmp_path: Path) -> None:
    train = write(tmp_path / "train.parquet", [row(0), row(1)])
    config = configure(train, "grading.data_sources={chartqa: {relative_tolerance: 0.05}}")
    check(config)
    grading = GradingConfig.from_mapping(config.grading)
    assert grading.context(data_source="chartqa").relative_tolerance == 0.05
    with pytest.raises(UserError, match=r"grading\.data_sources\.chartqa\.toleranze: unknown key"):
        check(configure(train, "grading.data_sources={chartqa: {toleranze: 0.05}}"))


def test_functions_of_the_users_own_are_imported_and_named(
    configure: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_path(tmp_path, monkeypatch)
    train = write(tmp_path / "train.parquet", [_openrow("model"), _openrow("model")])
    report = run_checks(
        configure(train, "grading.custom=user_graders:right", "reward_preset.custom_term=user_terms:short"), dry=True
    )
    assert [(fact.name, fact.value) for fact in report.facts if fact.area == "custom"] == [
        ("grading.custom", "user_graders:right"),
        ("reward_preset.custom_term", "user_terms:short"),
    ]
    assert not [line for line in report.findings if "judge" in line]  # the grader grades what would need one
    with pytest.raises(UserError) as raised:
        check(
            configure(
                train,
                "grading.custom={by_source: {test: user_exits:grade}, by_style: {model: user_graders:three}}",
                "reward_preset.custom_term=user_terms:none",
            )
        )
    told = str(raised.value).splitlines()
    assert [line.split(":")[0] for line in told] == [
        "grading.custom.by_style.model=user_graders",
        "grading.custom.by_source.test=user_exits",
        "reward_preset.custom_term=user_terms",
    ], told
    with pytest.raises(UserError) as raised:
        check(configure(train, "grading.custom={by_style: {magic: a:b}}", "reward_preset.custom_term=a"))
    assert {line.split("=")[0] for line in str(raised.value).splitlines()} == {
        "grading.custom.by_style.magic",
        "reward_preset.custom_term",
    }


@pytest.mark.parametrize("node", ["environment", "grading", "reward_preset.preset"])
def test_what_is_no_mapping_is_told(node: str, configure: Callable[..., DictConfig], tmp_path: Path) -> None:
    train = write(tmp_path / "train.parquet", [row(0), row(1)])
    with pytest.raises(UserError, match=rf"{node}=foo: must be "):
        check(configure(train, f"{node}=foo"))


def test_a_style_of_grading_that_is_not_known_is_named(configure: Callable[..., DictConfig], tmp_path: Path) -> None:
    train = write(tmp_path / "train.parquet", [_openrow("magic")])
    with pytest.raises(UserError, match=r"row 0: reward_model\.style is 'magic'; known are rule, model, judge"):
        check(configure(train))


@pytest.mark.parametrize("seed", ["-1", "x", "2147483648"])
def test_an_impossible_seed_is_named_with_its_range(
    seed: str, tmp_path: Path, configure: Callable[..., DictConfig]
) -> None:
    train = write(tmp_path / "train.parquet", [row(0)])
    with pytest.raises(UserError, match=rf"seed='?{seed}'?: must be a whole number from 0 to"):
        check(configure(train, f"seed={seed}"))


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["monitors.window=1"], r"monitors\.window=1: must be"),
        (["sampling.oversample=2"], r"sampling\.oversample=2: needs sampling\.keep=on_correct"),
        (
            ["sampling.redraw_calls=4", "actor_rollout_ref.rollout.n=5"],
            r"sampling\.redraw_calls=4: must be at most 3, as 2 of the actor_rollout_ref\.rollout\.n=5 rollouts",
        ),
        (
            ["sampling.redraw_calls=2", "actor_rollout_ref.rollout.n=4", "reward_preset=fatal_aware"],
            r"sampling\.redraw_calls=2: must be 0 with reward_preset\.fatal_failures=3, as both leave",
        ),
        (
            ["algorithm.filter_groups.enable=true", "algorithm.filter_groups.metric=accuracy"],
            r"algorithm\.filter_groups\.metric=accuracy: must be one of outcome, reward",
        ),
        (["trainer.max_actor_ckpt_to_keep=two"], r"trainer\.max_actor_ckpt_to_keep=two: must be a whole number from 1"),
        (["trainer.max_actor_ckpt_to_keep=2.0"], r"trainer\.max_actor_ckpt_to_keep=2\.0: must be"),
        (["trainer.max_actor_ckpt_to_keep=-1"], r"trainer\.max_actor_ckpt_to_keep=-1: must be"),
        (
            ["trainer.default_local_dir=/elsewhere"],
            r"trainer\.default_local_dir=/elsewhere: must be .*run/checkpoints; choose another run_dir",
        ),
        (["trainer.default_local_dir=null"], r"trainer\.default_local_dir=None: must be"),
        (["stop_grace_s=0"], r"stop_grace_s=0: must be .*1 to 86400"),
        (["stop_grace_s=null"], r"stop_grace_s=None: must be"),
        (["step_limit_s=0.5"], r"step_limit_s=0\.5: must be .*1 to 604800"),
        (["placement_limit_s=0"], r"placement_limit_s=0: must be .*1 to 604800"),
        (["deterministic=maybe"], r"deterministic=maybe: must be true or false"),
        (["deterministic=true", "trainer=colocate_async"], r"deterministic=true: needs trainer\.v1\.trainer_mode=sync"),
        (["algorithm.adv_estimator=foo"], r"algorithm\.adv_estimator=foo: must be one of codedance_grpo, "),
        (["reward.custom_reward_function.path=mine.py"], r"path=mine\.py: has no effect here: it would never be"),
        (["algorithm=ppo", "reward_preset=gtpo"], r"adv_estimator=gae: .*needs codedance_grpo"),
        (["algorithm.adv_estimator=gae", "reward_preset=gtpo"], r"adv_estimator=gae: .*needs codedance_grpo"),
        (["algorithm=ppo", "reward_preset=fatal_aware"], r"gae: reward_preset\.fatal_failures=3 needs codedance_grpo"),
    ],
)
def test_settings_that_would_end_a_run_later_are_named_now(
    overrides: list[str], told: str, tmp_path: Path, configure: Callable[..., DictConfig]
) -> None:
    train = write(tmp_path / "train.parquet", [row(0)])
    with pytest.raises(UserError, match=told):
        check(configure(train, *overrides))


START = r"trainer\.resume_from_path={}: must be a checkpoint's folder, \.\.\./global_step_N without a slash"
NOT_WHOLE = r"trainer\.resume_from_path={}: no whole checkpoint there"


@pytest.mark.parametrize(
    ("start", "told"),
    [
        ("global_step_20", None),
        ("global_step_20/", START),
        ("global_step_30", NOT_WHOLE),
        ("global_step_40", NOT_WHOLE),
        ("somewhere", START),
        (None, START),
    ],
    ids=["whole", "with a slash", "half written", "not there", "no checkpoint", "null"],
)
def test_a_run_begins_from_a_whole_checkpoint(
    start: str | None, told: str | None, tmp_path: Path, configure: Callable[..., DictConfig]
) -> None:
    for step in (20, 30):
        (tmp_path / f"global_step_{step}").mkdir()
    seal(tmp_path / "global_step_20")
    train = write(tmp_path / "train.parquet", [row(0), row(1)])
    path = "null" if start is None else f"{tmp_path}/{start}"
    config = configure(train, "trainer.resume_mode=resume_path", f"trainer.resume_from_path={path}")
    if told is None:
        check(config)
    else:
        with pytest.raises(UserError, match=told.format("None" if start is None else path)):
            check(config)


def test_on_a_cluster_that_is_joined_every_relative_path_is_named(
    configure: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "train.parquet", [row(0), row(1)])
    monkeypatch.chdir(tmp_path)
    config = configure(Path("train.parquet"), "run_dir=run", "actor_rollout_ref.model.path=org/model")
    check(config)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(UserError) as raised:
        check(config)
    named = [line.split("=")[0] for line in str(raised.value).splitlines()]
    assert named == ["run_dir", "data.train_files", "data.val_files"], "a name of the hub is no path"
    (tmp_path / "org" / "model").mkdir(parents=True)
    with pytest.raises(
        UserError, match=r"actor_rollout_ref\.model\.path=org/model: relative, so on a cluster each node"
    ):
        check(config)


def test_adapters_are_merged_for_vllm(configure: Callable[..., DictConfig], tmp_path: Path) -> None:
    train = write(tmp_path / "train.parquet", [row(0), row(1)])
    check(configure(train, "adapter=lora", "actor_rollout_ref.model.lora_rank=32"))
    with pytest.raises(UserError) as raised:
        check(configure(train, "actor_rollout_ref.model.lora_rank=32"))
    assert str(raised.value) == (
        "actor_rollout_ref.model.lora.merge=false: must be true with actor_rollout_ref.model.lora_rank=32; "
        "adapter=lora sets it"
    )
