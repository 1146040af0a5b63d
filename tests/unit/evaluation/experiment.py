"""A whole small experiment on disk: SFT evaluated, two RL seeds trained and evaluated. Figures are known by hand."""

from __future__ import annotations

import json
from pathlib import Path

from codedance_verl.evaluation.build import ReportInputs, SeedRun
from tests.unit.evaluation.logs import Line, answer_turn, code_turn, image, line, png, write_log, write_test_file

HARD, EASY = 210, 105
"""Questions: hard ones of two kinds, easy ones of one; one in three has a blank control."""


def make_experiment(root: Path) -> ReportInputs:
    """SFT: a third of hard and half of easy right, tools half of the time. RL: all right, tools on hard only."""
    before = [item for index in range(HARD + EASY) for item in _question(index, trained=False)]
    test_file = write_test_file(root / "data" / "test.parquet", before)
    _store(root / "eval_sft", before)
    seeds = []
    for seed in (0, 1):
        run = root / f"rl_seed{seed}"
        _store(run, [item for index in range(HARD + EASY) for item in _question(index, trained=True)])
        make_training(run)
        seeds.append(SeedRun(seed, run))
    return ReportInputs(
        title="Test experiment",
        test_file=test_file,
        sft_evaluation=root / "eval_sft",
        seeds=tuple(seeds),
        stages={"data": 10.0, "sft": 100.0, "rl_seed0": 200.0},
        notes=("made by a test",),
        max_wall_s=2_700.0,
    )


def make_training(run: Path, steps: int = 3) -> None:
    """Four rollouts per step, one more of them right at each; every step 10 s, of which rollout 6, update 2, sync 1."""
    lines = [
        line(
            f"train-{step}-{index}",
            step=step,
            split="train",
            difficulty="easy" if index == 3 else "hard",
            calls=() if index == 3 else ("ok",),
            verdict="correct" if index < step else "wrong",
            variant=None,
            timing=(2.0, 1.0, 0.0),
        )
        for step in range(1, steps + 1)
        for index in range(4)
    ]
    write_log(run / "trajectories", lines)
    metrics = run / "metrics"
    metrics.mkdir(parents=True)
    timing = {"timing_s/step": 10.0, "timing_s/gen": 6.0, "timing_s/update_actor": 2.0, "timing_s/update_weights": 1.0}
    texts = [json.dumps({"step": step, "data": {**timing, "critic/score/mean": 0.5}}) for step in range(1, steps + 1)]
    (metrics / "0000.jsonl").write_text("\n".join(texts) + "\n")


def _store(run: Path, lines: list[Line]) -> None:
    log = run / "trajectories"
    write_log(log, lines)
    for colour in ("red", "green"):
        file = log / image(png(colour))["path"]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(colour))


def _question(index: int, trained: bool) -> list[Line]:
    easy = index >= HARD
    kind = "sum" if easy else ("count_photo", "extremes")[index % 2]
    right = trained or (index % 2 == 0 if easy else index % 3 == 0)
    uses_tool = not easy if trained else index % 2 == 0
    turns = [code_turn(code="input_image.show()", images=[image(png("green"))])] if uses_tool else []
    common = {
        "kind": kind,
        "difficulty": "easy" if easy else "hard",
        "turns": [*turns, answer_turn("3" if right else "5")],
        "answer": "3" if right else "5",
        "input_images": [image(png("red"))],
    }
    name = f"{kind}-test-{index:06d}"
    rows = [
        line(name, variant="sampled", verdict="correct" if right else "wrong", **common),  # type: ignore[arg-type]
        line(name, variant="greedy", verdict="correct", **common),  # type: ignore[arg-type]
    ]
    if index % 3 == 0:
        rows.append(line(name, variant="blank", verdict="wrong", **common))  # type: ignore[arg-type]
    return rows
