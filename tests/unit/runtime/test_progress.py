"""The line of a step says where the run is, and comes while the metrics file grows."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

from codedance_verl.runtime.progress import StepLines, step_lines

STEP = {
    "timing_s/step": 40.0,
    "critic/score/mean": 0.8149,
    "codedance/rollout/trajectories_total/train/answer": 30.0,
    "codedance/rollout/trajectories_total/train/length": 2.0,
    "codedance/rollout/trajectories_total/val/answer": 500.0,
    "codedance/rollout/with_calls_total/train": 24.0,
}


def test_a_line_has_step_reward_tool_rate_and_what_is_left() -> None:
    lines = StepLines(12)
    assert lines.line(2, STEP) == "step 2/12, reward 0.81, tools 75%, 40 s, 6:40 to go"
    slower = {**STEP, "timing_s/step": 60.0, "timing_s/testing": 20.0}
    assert lines.line(3, slower) == "step 3/12, reward 0.81, tools 75%, 60 s, 9:00 to go"


def test_a_line_leaves_out_what_is_not_known() -> None:
    assert StepLines(None).line(7, {"timing_s/step": 3.2, "note": "x"}) == "step 7, 3 s"


def test_lines_follow_a_file_that_grows_and_pass_over_what_is_no_step(tmp_path: Path) -> None:
    file, stream = tmp_path / "0000.jsonl", io.StringIO()
    with step_lines(file, 2, stream):
        file.write_text(json.dumps({"step": 0, "data": {"val/acc": 1.0}}) + "\nbroken\n")
        with file.open("a") as target:
            target.write(json.dumps({"step": 1, "data": STEP}) + "\n" + '{"step": 2, "da')
        deadline = time.monotonic() + 20
        while "step 1/2" not in stream.getvalue() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert stream.getvalue().count("\n") == 1
        with file.open("a") as target:
            target.write('ta": {"timing_s/step": 40.0}}\n')
    first, second = stream.getvalue().splitlines()
    assert "step 1/2, reward 0.81" in first and "step 2/2, 40 s, 0:00 to go" in second
