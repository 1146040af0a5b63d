"""Settings of an evaluation, loaded from the configuration `eval`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from codedance_verl.config.compose import compose_config
from codedance_verl.errors import UserError
from codedance_verl.grading.config import GradingConfig
from codedance_verl.harness.config import EvalConfig
from codedance_verl.tasks.own_records import is_own


@dataclass(frozen=True)
class EvalSettings:
    """Settings of one evaluation; `tree` is the whole configuration, which holds that of the service too."""

    evaluation: EvalConfig
    grading: GradingConfig
    tree: DictConfig
    overrides: tuple[str, ...]

    @property
    def out(self) -> Path:
        """Folder of records, scores and report."""
        return Path(self.evaluation.out).expanduser()

    @property
    def beside(self) -> tuple[Path, ...]:
        """Folders of runs that the report shows beside this one."""
        return tuple(Path(folder).expanduser() for folder in self.evaluation.beside)


def load(overrides: Sequence[str]) -> EvalSettings:
    """Loads the settings under the configuration `eval`.

    Raises:
        UserError: an unknown key, a missing or an impossible value; a line for each.
    """
    tree = compose_config("eval", list(overrides))
    evaluation = EvalConfig.from_mapping(_plain(tree, "eval"))
    # a file of one's own is its own data
    needed = ["model", "benchmarks", *(["data"] if not all(map(is_own, evaluation.benchmarks)) else [])]
    if missing := [name for name in needed if not getattr(evaluation, name)]:
        raise UserError("\n".join(f"eval.{name}: must be given" for name in missing))
    if evaluation.model_revision and evaluation.endpoint is None:
        raise UserError("eval.model_revision: for a chat endpoint alone; a model that runs here is told by its weights")
    grading = GradingConfig.from_mapping(_plain(tree, "grading"))
    if evaluation.judge_agreement and not grading.judge.endpoints:
        raise UserError("eval.judge_agreement: there is no judge; name its servers in grading.judge.endpoints")
    return EvalSettings(
        evaluation=evaluation,
        grading=grading,
        tree=tree,
        overrides=tuple(overrides),
    )


def _plain(config: DictConfig, node: str) -> dict[str, Any]:
    values: Any = OmegaConf.to_container(OmegaConf.select(config, node), resolve=True)
    return dict(values)
