from __future__ import annotations

from pathlib import Path

import pytest

from codedance_verl.config.compose import compose_config
from codedance_verl.errors import UserError
from recipes.cpu_demo.stages import Stage, parse_seeds, plan, rl_steps, sft_steps

OUT = Path("/nonexistent/demo")


def named(backend: str = "docker", seeds: tuple[int, ...] = (0, 1), model: str = "tiny") -> dict[str, Stage]:
    return {stage.name: stage for stage in plan(OUT, seeds, backend, model)}


def test_the_plan_goes_from_the_image_to_the_report() -> None:
    assert list(named()) == ["image", "data", "model", "sft", "eval_sft", "rl_seed0", "rl_seed1", "report"]


def test_without_containers_there_is_no_image_to_build() -> None:
    assert "image" not in named("process")
    assert "sandbox.backend=process" in named("process")["rl_seed0"].command


def test_every_input_comes_from_an_earlier_stage_or_the_repository() -> None:
    made: list[Path] = []
    for stage in plan(OUT, (0, 1), "docker"):
        for path in stage.inputs:
            assert not path.is_relative_to(OUT) or any(path == output or path in output.parents for output in made), (
                f"{stage.name} needs {path}"
            )
        made += stage.outputs


def test_seeds_differ_in_seed_and_folder() -> None:
    first, second = named(seeds=(3, 8))["rl_seed3"], named(seeds=(3, 8))["rl_seed8"]
    assert "seed=3" in first.command and "seed=8" in second.command
    assert first.folder != second.folder


def test_rl_ends_with_its_model_the_checkpoint_of_its_last_step_and_an_evaluation() -> None:
    stage = named()["rl_seed0"]
    _model, checkpoint, _evaluation = stage.outputs
    assert checkpoint.name == f"global_step_{rl_steps()}"
    test_file = next(item for item in named()["eval_sft"].command if item.startswith("data.val_files="))
    assert {test_file, f"trainer.test_freq={rl_steps()}"} <= set(stage.command)


def test_only_training_resumes_and_every_stage_is_bounded() -> None:
    stages = named()
    assert [name for name, stage in stages.items() if stage.resumable] == ["sft", "rl_seed0", "rl_seed1"]
    assert all(stage.expected_s < stage.timeout_s <= 2_400 for stage in stages.values())


@pytest.mark.parametrize(
    ("stage", "config", "steps"),
    [("sft", "sft", sft_steps()), ("rl_seed0", "train", rl_steps()), ("eval_sft", "evaluate", rl_steps())],
)
def test_the_configuration_knows_every_key_of_the_commands(stage: str, config: str, steps: int) -> None:
    composed = compose_config(config, list(named()[stage].command[3:]))
    assert composed.trainer.total_training_steps == steps
    assert composed.run_dir == str(named()[stage].folder)


def test_another_model_is_built_and_its_configuration_used() -> None:
    default, other = named(), named(model="tiny_qwen3")
    differ = {name: set(other[name].command) - set(default[name].command) for name in default}
    assert differ.pop("model") == {"--model", "tiny_qwen3"}
    for name in ("eval_sft", "rl_seed0", "rl_seed1"):
        assert differ.pop(name) == {"model=tiny_qwen3"}
    assert not any(differ.values())


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "config"), [("rl_seed0", "train"), ("eval_sft", "evaluate")])
def test_the_trained_weights_of_another_model_are_used_with_its_patches(stage: str, config: str) -> None:
    composed = compose_config(config, list(named(model="tiny_qwen3")[stage].command[3:]))
    assert composed.actor_rollout_ref.model.path == str(OUT / "sft" / "model")
    assert composed.data.image_patch_size == 16


def test_seeds_are_read() -> None:
    assert parse_seeds("0,1") == (0, 1) and parse_seeds(" 7 ") == (7,)


@pytest.mark.parametrize("text", ["", "a", "0,", "0,0", "-1", "1.5", "²", str(2**31)])
def test_seeds_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="must be different whole numbers"):
        parse_seeds(text)
