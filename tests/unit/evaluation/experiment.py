"""A whole small experiment on disk: SFT evaluated, two RL seeds trained and evaluated. Figures are known by hand."""

from __future__ import annotations

import json
from pathlib import Path

from codedance_verl.data.parquet import write_rows
from codedance_verl.data.schema import SFT_SCHEMA
from codedance_verl.evaluation.build import ReportInputs, SeedRun
from codedance_verl.evaluation.effects import KindRoles
from codedance_verl.formats import get_format
from tests.unit.evaluation.logs import Line, answer_turn, code_turn, image, line, png, write_log, write_test_file

HARD, EASY = 210, 105
"""Questions: hard ones of four kinds, easy ones of two; one in three has a blank control, half have the others."""

HARD_KINDS, EASY_KINDS = ("count_photo", "extremes", "look", "count_digits"), ("sum", "look_large")
CALLED = ("count_photo", "extremes", "look", "sum")
"""Kinds with a demonstration that calls code."""

COLOURS = ("red", "green", "blue", "yellow", "orange", "purple")
STEPS = 3
ROLES = KindRoles(("count_digits",), ("look",), (("look", "look_large"),))


def make_experiment(root: Path) -> ReportInputs:
    """SFT: a third of hard and half of easy right, tools half of the time. RL: all right, tools on hard only.

    Without tools one in six of the hard questions is right before RL, one in five after.
    """
    before = [item for index in range(HARD + EASY) for item in _question(index, trained=False)]
    test_file = write_test_file(root / "data" / "test.parquet", before)
    _store(root / "eval_sft", before)
    _write_demonstrations(root / "data" / "sft.parquet")
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
        roles=ROLES,
    )


def make_training(run: Path, steps: int = STEPS) -> None:
    """Four rollouts per step, one more of them right at each; every step 10 s, of which rollout 6, update 2, sync 1.

    One of them is of the kind that is never demonstrated with code, and right at the third step only.
    """
    lines = [
        line(
            f"train-{step}-{index}",
            step=step,
            split="train",
            kind=("count_photo", "extremes", "count_digits", "sum")[index],
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
    kind = EASY_KINDS[index % 2] if easy else HARD_KINDS[index % 4]
    sampled = trained or (index % 4 < 2 if easy else index % 3 == 0)
    greedy = trained or easy or index % 3 == 0
    calls = not easy if trained else index % 2 == 0
    truth = COLOURS[index // 4 % 6] if kind.startswith("look") else "3"
    name = f"{kind}-test-{index:06d}"

    def row(variant: str, right: bool, code_ran: bool) -> Line:
        turns = [code_turn(code="input_image.show()", images=[image(png("green"))])] if code_ran else []
        answer = truth if right else "5"
        found = line(
            name,
            step=STEPS if trained else 0,
            variant=variant,
            verdict="correct" if right else "wrong",
            kind=kind,
            difficulty="easy" if easy else "hard",
            turns=[*turns, answer_turn(answer)],
            answer=answer,
            input_images=[image(png("red"))],
        )
        return found | {"ground_truth": truth}

    rows = [row("sampled", sampled, calls), row("greedy", greedy, calls)]
    if index % 3 == 0:
        rows.append(row("blank", False, calls))
    if index // 24 % 2 == 0:  # whole turns of kinds and colours
        # A sixth of the answers is right by chance where the returned image would have been needed.
        rows.append(row("grey", greedy and (kind != "look" or truth == "red"), calls))
        rows.append(row("no_tools", easy or index % (5 if trained else 6) == 0, False))
        rows.append(row("forced_tools", greedy, True))
    return rows


def _write_demonstrations(path: Path) -> None:
    """Two of each kind, those of `CALLED` with a call."""
    question = {"role": "user", "content": "<image>How many?"}
    called = [{"role": "assistant", "content": get_format("code").render_call("print(3)")}]
    called.append({"role": "user", "content": "<tool_response>\n3\n</tool_response>"})
    answer = {"role": "assistant", "content": "<answer>3</answer>"}
    rows = [
        {
            "messages": [question, *(called if kind in CALLED else []), answer],
            "images": [{"bytes": png()}],
            "record_id": f"{kind}-sft-{index}",
            "kind": kind,
            "difficulty": "easy" if kind in EASY_KINDS else "hard",
            "style": "right",
        }
        for kind in (*HARD_KINDS, *EASY_KINDS)
        for index in range(2)
    ]
    write_rows(path, rows, SFT_SCHEMA)
