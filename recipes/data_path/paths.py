"""Sizes, files and folders of the path, apart from what makes them: its libraries take seconds to import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from codedance_verl.errors import UserError
from codedance_verl.filtering.rule import Stratum
from recipes.cpu_demo.stages import Layout

FILTERED, UNFILTERED = "filtered", "unfiltered"
ARMS = (FILTERED, UNFILTERED)

WITH_TOOLS = (Stratum.MEDIUM, Stratum.HARD)
"""Strata whose questions may get demonstrations with code, and that RL trains on."""

WITHOUT = (Stratum.EASY,)
"""Strata that are demonstrated by answers at once; RL gets none of them, as the paper prunes what is trivial."""

SFT, RL_TRAIN = "sft.parquet", "rl_train.parquet"
OF_THE_DEMO = ("rl_val.parquet", "test.parquet")
"""Files of the demo that are taken as they are."""

QUESTIONS, SAMPLES, TRIES = 1_500, 4, 3


@dataclass(frozen=True)
class Study:
    """What is run.

    Attributes:
        out: folder of everything.
        demo: a finished one.
        seeds: of SFT and RL.
        backend: where code runs, "docker" or "process".
        questions: of the pool.
        samples: of each question by each model, with tools and without, at most.
        tries: trajectories for a medium or hard question, until one is kept.
    """

    out: Path
    demo: Layout
    seeds: tuple[int, ...]
    backend: str
    questions: int = QUESTIONS
    samples: int = SAMPLES
    tries: int = TRIES

    @property
    def pool(self) -> Path:
        """File of the questions."""
        return self.out / "pool" / "pool.parquet"

    @property
    def strata(self) -> Path:
        """Folder of the filter."""
        return self.out / "filter"

    @property
    def strata_files(self) -> tuple[Path, ...]:
        """Files of the strata that are used; one that has no question has none."""
        return tuple(self.strata / f"{stratum}.parquet" for stratum in (*WITH_TOOLS, *WITHOUT))

    @property
    def synthesis(self) -> Path:
        """Folder of the synthesis."""
        return self.out / "synthesis"


def layout(out: Path, arm: str, seed: int) -> Layout:
    """Paths of an arm with a seed."""
    return Layout(out / arm / f"seed{seed}")


def run_of_rl(demo: Layout) -> Path:
    """First run of RL of a demo, whose settings all models get. Raises UserError: it has none."""
    found = sorted(path.parent for path in demo.out.glob("rl_seed*/config.yaml"))
    if not found:
        raise UserError(f"{demo.out}: has no run of RL; give the folder of a finished demo")
    return found[0]
