"""Writes a run's trajectories as training would: drawn scenes, questions about them, calls that crop and count.

    python -m benchmarks.sample_run FOLDER --steps 6 --groups 8

No model runs: the texts are made up, the executions too. It shows the viewer and is what its tests look at.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import random
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw

from codedance_verl.reward.advantage import group_advantages
from codedance_verl.reward.config import RewardConfig
from codedance_verl.reward.terms import score_group
from codedance_verl.trajectories.writer import TrajectoryLog
from codedance_verl.types import (
    Execution,
    ExecutionError,
    ExecutionStatus,
    FinishReason,
    Grade,
    Observation,
    RenderedImage,
    Trajectory,
    Turn,
    Verdict,
)

COLOURS = ("red", "green", "blue", "orange", "purple")
SIDE = 224
_REWARD = RewardConfig.from_mapping({"turn_credit": "fixed"})


@dataclass(frozen=True)
class Scene:
    """An image of discs, and how many there are of each colour."""

    seed: int
    colour: str
    count: int
    image: Image.Image


@lru_cache(maxsize=256)
def scene(seed: int) -> Scene:
    """Draws one; the same seed gives the same image."""
    chance = random.Random(seed)
    image = Image.new("RGB", (SIDE, SIDE), "#f4f1e8")
    draw = ImageDraw.Draw(image)
    colours = [chance.choice(COLOURS) for _ in range(chance.randint(6, 12))]
    places = chance.sample([(x, y) for x in range(5) for y in range(5)], len(colours))
    for colour, (x, y) in zip(colours, places, strict=True):
        left, top, size = 8 + 42 * x, 8 + 42 * y, chance.randint(16, 34)
        draw.ellipse((left, top, left + size, top + size), fill=colour)
    asked = chance.choice(colours)
    return Scene(seed, asked, colours.count(asked), image)


def rendered(image: Image.Image) -> RenderedImage:
    """Image as the sandbox returns it."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    png = buffer.getvalue()
    return RenderedImage(hashlib.sha256(png).hexdigest(), image.width, image.height, png)


@lru_cache(maxsize=1024)
def _halves(seed: int) -> tuple[RenderedImage, RenderedImage]:
    image, half = scene(seed).image, SIDE // 2
    return tuple(  # type: ignore[return-value]
        rendered(image.crop((0, top, SIDE, top + half)).resize((SIDE * 2, SIDE))) for top in (0, half)
    )


def rollout(what: Scene, skill: float, chance: random.Random, pictures: bool = True) -> tuple[Trajectory, Grade]:
    """One made-up rollout; `skill`, 0 to 1, is the share that uses code and is right."""
    tool, right = chance.random() < 0.3 + 0.6 * skill, chance.random() < 0.25 + 0.7 * skill
    said = what.count if right else what.count + chance.choice((-1, 1, 2))
    turns: list[Turn] = []
    if tool:
        if chance.random() < 0.5 * (1 - skill):
            turns.append(_failed(what))
        if chance.random() < 0.5:
            turns.append(_looked(what, pictures))
        turns.append(_counted(what, said))
    turns.append(_turn(f"<think>There are {said} of them.</think>\n<answer>{said}</answer>", len(turns)))
    question = f"How many {what.colour} discs are in the picture?"
    trajectory = Trajectory(
        record_id=f"discs-{what.seed:05d}",
        data_source="sample/discs",
        question=question,
        ground_truth=str(what.count),
        turns=tuple(_turn(turn.text, at, turn.code, turn.execution) for at, turn in enumerate(turns)),
        finish=FinishReason.ANSWER,
        answer=str(said),
    )
    verdict = Verdict.CORRECT if right else Verdict.WRONG
    return trajectory, Grade(verdict, "number", f"{said} {'=' if right else '!='} {what.count}")


def _turn(text: str, at: int, code: str | None = None, execution: Execution | None = None) -> Turn:
    shown = None if execution is None else Observation(f"<tool_response>\n{execution.stdout}</tool_response>")
    return Turn(text, 200 * at, 200 * at + max(1, len(text) // 4), code, execution, shown)


def _call(thought: str, code: str, execution: Execution) -> Turn:
    return _turn(f"<think>{thought}</think>\n<code>\n```python\n{code}\n```\n</code>", 0, code, execution)


def _failed(what: Scene) -> Turn:
    code = f"import numpy as np\na = np.array(input_image)\nprint(count(a == '{what.colour}'))"
    error = ExecutionError("NameError", "name 'count' is not defined", "cell line 3: print(count(a == ...))")
    return _call("I count the pixels.", code, Execution(ExecutionStatus.ERROR, error=error, duration_s=0.02))


def _looked(what: Scene, pictures: bool) -> Turn:
    code = (
        "half = input_image.height // 2\n"
        "for top in (0, half):\n"
        "    part = input_image.crop((0, top, input_image.width, top + half))\n"
        "    display(part.resize((part.width * 2, part.height * 2)))"
    )
    images = _halves(what.seed) if pictures else ()
    return _call(
        "The discs are small, I look at both halves.", code, Execution(ExecutionStatus.OK, "", None, images, 0.06)
    )


def _counted(what: Scene, said: int) -> Turn:
    code = (
        "import numpy as np\n"
        "from PIL import ImageColor\n"
        "from scipy.ndimage import label\n\n"
        "a = np.array(input_image.convert('RGB'), int)\n"
        f"near = abs(a - ImageColor.getrgb('{what.colour}')).max(-1) < 40  # of one colour\n"
        "print(label(near)[1])"
    )
    return _call(f"I count what is {what.colour}.", code, Execution(ExecutionStatus.OK, f"{said}\n", duration_s=0.31))


def write_group(
    log: TrajectoryLog, seed: int, *, step: int, split: str, size: int, skill: float, pictures: bool = True
) -> None:
    """Writes the rollouts of one question, scored together as training does."""
    what, chance = scene(seed), random.Random(f"{seed}/{step}/{split}")
    made = [rollout(what, skill, chance, pictures) for _ in range(size)]
    trajectories, grades = [item[0] for item in made], [item[1] for item in made]
    terms = score_group(trajectories, grades, _REWARD)
    known = group_advantages(terms, _REWARD, divide_by_std=True)
    for sample, (trajectory, grade) in enumerate(made):
        generate = chance.uniform(1.5, 6.0)
        execute = sum(execution.duration_s for execution in trajectory.executions)
        log.write(
            trajectory,
            grade,
            terms[sample],
            step=step,
            split=split,
            group=f"{split}-{step}-{seed}",
            sample=sample,
            extra_info={"kind": "discs", "difficulty": "hard" if what.count > 2 else "easy"},
            input_images=[what.image] if pictures else [],
            timing={"generate_s": generate, "execute_s": execute, "queue_s": 0.01, "total_s": generate + execute + 0.1},
            advantage={"sequence": known[sample].sequence, "turns": known[sample].turns},
        )


def write_run(run_dir: Path, *, steps: int = 6, groups: int = 8, size: int = 4, seed: int = 0) -> Path:
    """Writes a whole run: training steps from 1, and validation every third step. Returns its folder."""
    log = TrajectoryLog(run_dir / "trajectories", f"{seed:08x}")
    for step in range(1, steps + 1):
        skill = step / steps
        for group in range(groups):
            write_group(log, seed * 1000 + group, step=step, split="train", size=size, skill=skill)
        if step % 3 == 0:
            for group in range(groups // 2):
                write_group(log, 500 + group, step=step, split="val", size=1, skill=skill)
    return run_dir


def main() -> None:
    """Writes one run, or two beside each other with `--runs 2`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--groups", type=int, default=8)
    given = parser.parse_args()
    for run in range(given.runs):
        print(write_run(given.folder / f"sample_{run}", steps=given.steps, groups=given.groups, seed=run))


if __name__ == "__main__":
    main()
