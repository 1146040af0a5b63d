"""Filter over a real HTTP server: strata and evidence, failures, a killed run, what is asked again and what is not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from codedance_verl.cli import build_app
from codedance_verl.data.checking import check_file
from codedance_verl.datasets import pieces
from codedance_verl.errors import UserError
from codedance_verl.filtering import rows
from codedance_verl.harness.dispatch import FAILURES_IN_A_ROW
from codedance_verl.records.key import ChangedKey
from codedance_verl.records.record import Status, decode
from tests.unit.datasets.published import png
from tests.unit.filtering.models_server import Models, Request, questions, serving

PLAIN = ["--weak-tool-samples", "0", "--strong-tool-samples", "0", "eval.loop=plain"]
SANDBOX = ["sandbox.backend=process", "sandbox.containers=1", "sandbox.standby_containers=0", "eval.loop=chat"]
STRATA = ("easy", "medium", "hard", "unanswerable", "ungraded")


def command(file: Path, out: Path, url: str, *more: str) -> list[str]:
    models = ["--weak", "small", "--weak-endpoint", url, "--strong", "large", "--strong-endpoint", url]
    return ["data", "filter", str(file), "--out", str(out), *models, "--workers", "1", *more]


def run(file: Path, out: Path, url: str, *more: str) -> str:
    arguments = command(file, out, url, *more)
    done = CliRunner().invoke(build_app(arguments), arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def strata_of(out: Path) -> dict[int, str]:
    """Stratum of each question by its number, as the records state it; each stands in the file of its stratum."""
    found: dict[int, str] = {}
    for name in STRATA:
        if (path := out / f"{name}.parquet").exists():
            for row in pq.read_table(path).to_pylist():
                assert row["extra_info"]["difficulty"] == name
                assert row["extra_info"]["index"] not in found
                found[row["extra_info"]["index"]] = name
    return found


def evidence_of(out: Path, stratum: str) -> list[dict[str, Any]]:
    table = pq.read_table(out / f"{stratum}.parquet").to_pylist()
    return [json.loads(row["extra_info"]["evidence"]) for row in table]


# by number of the question: right in the weak model plain, with tools, in the strong one plain, with tools
RIGHT = {
    0: (True, True, True, True),
    1: (False, True, True, True),
    2: (False, False, True, True),
    3: (False, False, False, True),
    4: (False, False, False, False),
}


def by_table(request: Request) -> bool:
    return RIGHT[request.question][2 * (request.model == "large") + request.tools]


def test_both_models_with_and_without_tools(tmp_path: Path) -> None:
    file, out = questions(tmp_path / "rl.parquet", 5, "hard"), tmp_path / "out"
    with serving(Models(by_table)) as models:
        run(file, out, models.url, *SANDBOX)
        assert strata_of(out) == {0: "easy", 1: "medium", 2: "medium", 3: "medium", 4: "unanswerable"}
        assert max(models.answered.values()) == 1
        asked = Counter((one.question, one.model, one.tools) for one in models.answered)
        # 6 right or 3 wrong of 8 decide at a threshold of .75, 4 right or 5 wrong at .5, and all wrong at none right
        assert [asked[0, "small", False], asked[0, "small", True], asked[0, "large", False]] == [6, 0, 0]
        assert [asked[1, "small", False], asked[1, "small", True], asked[1, "large", False]] == [3, 6, 0]
        assert [asked[2, "small", True], asked[2, "large", False], asked[2, "large", True]] == [3, 4, 0]
        assert [asked[3, "large", False], asked[3, "large", True]] == [8, 4]
        assert [asked[4, "large", False], asked[4, "large", True]] == [8, 8]
        evidence = evidence_of(out, "unanswerable")[0]
        assert evidence["strong"] == {"right": 0, "wrong": 8, "unknown": 0, "of": 8, "calls": 0, "rate_at_most": 0.312}
        assert evidence["stated_difficulty"] == "hard"
        report = json.loads((out / "filter.json").read_bytes())
        assert report["strata"] == {"easy": 1, "medium": 3, "hard": 0, "unanswerable": 1, "ungraded": 0}
        assert report["arms"]["weak"]["samples"] == report["arms"]["weak"]["requests"] == 6 + 4 * 3
        assert report["arms"]["strong"]["completion_tokens"] == 5 * (4 + 8 + 8)
        # the same command again asks nothing
        before = models.answered.total()
        said = run(file, out, models.url, *SANDBOX)
        assert "weak model: nothing is left to ask" in said and "strong model: nothing is left to ask" in said
        assert models.answered.total() == before and len(strata_of(out)) == 5


def test_outputs_are_records_that_mixtures_and_checks_take(tmp_path: Path) -> None:
    file, out = questions(tmp_path / "rl.parquet", 12), tmp_path / "out"
    with serving(Models(lambda one: one.question < 6 if one.model == "small" else one.question < 9)) as models:
        run(file, out, models.url, *PLAIN)
    assert strata_of(out) == {n: "easy" if n < 6 else "medium" if n < 9 else "unanswerable" for n in range(12)}
    for name in ("easy", "medium", "unanswerable"):
        assert not check_file(out / f"{name}.parquet").lines
    mixed = tmp_path / "mixed.parquet"
    arguments = ["data", "mix", str(out / "medium.parquet"), str(out / "easy.parquet"), "--out", str(mixed)]
    arguments += ["--curriculum", "easy,medium", "--workers", "1"]
    done = CliRunner().invoke(build_app(arguments), arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    records = pq.read_table(mixed).to_pylist()
    assert [row["extra_info"]["difficulty"] for row in records] == ["easy"] * 6 + ["medium"] * 3
    assert all(json.loads(row["extra_info"]["evidence"])["weak"]["of"] == 8 for row in records)


def test_failures_leave_a_record_ungraded_until_they_are_asked_again(tmp_path: Path) -> None:
    file, out = questions(tmp_path / "rl.parquet", 4), tmp_path / "out"
    broken = True

    def refuse(request: Request) -> int:
        # of question 1 all samples of the weak model fail, of question 2 two, which the others make up for
        failing = request.question == 1 or (request.question == 2 and request.seed < 2)
        return 400 if broken and request.model == "small" and failing else 0

    with serving(Models(lambda one: one.model == "small", refuse)) as models:
        run(file, out, models.url, *PLAIN)
        # the strong model is never right: taken for wrong, question 1 would be unanswerable
        assert strata_of(out) == {0: "easy", 1: "ungraded", 2: "easy", 3: "easy"}
        assert evidence_of(out, "ungraded")[0]["weak"]["unknown"] == 8
        assert "HTTP 400: out of order" in next(iter(json.loads((out / "filter.json").read_bytes())["failures"]))
        broken, before = False, Counter(models.answered)
        run(file, out, models.url, *PLAIN)
        assert strata_of(out) == dict.fromkeys(range(4), "easy") and not (out / "ungraded.parquet").exists()
        assert {one.question for one in models.answered - before} == {1}
        assert max(models.answered.values()) == 1


def test_a_dead_endpoint_ends_the_run_and_costs_no_sample_twice(tmp_path: Path) -> None:
    file, out = questions(tmp_path / "rl.parquet", 60), tmp_path / "out"
    models = Models(lambda one: True)
    models.refuse = lambda _: 401 if models.answered.total() >= 50 else 0
    with serving(models):
        with pytest.raises(UserError, match=f"{FAILURES_IN_A_ROW} failures of the model or its endpoint in a row"):
            run(file, out, models.url, *PLAIN)
        assert not list(out.glob("*.parquet"))
        models.refuse = lambda _: 0
        run(file, out, models.url, *PLAIN)
    assert strata_of(out) == dict.fromkeys(range(60), "easy")
    assert max(models.answered.values()) == 1 and models.answered.total() == 60 * 6


def test_a_killed_run_asks_no_sample_on_record_again(tmp_path: Path) -> None:
    file, out = questions(tmp_path / "rl.parquet", 40), tmp_path / "out"
    half = threading.Event()
    models = Models(lambda one: one.question % 4 != 0 if one.model == "small" else one.question % 8 == 0)
    models.seen = lambda count: half.set() if count >= 150 else None
    with serving(models):
        arguments = command(file, out, models.url, *PLAIN)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        process = subprocess.Popen([sys.executable, "-m", "codedance_verl.cli", *arguments], env=environment)
        try:
            assert half.wait(120)
        finally:
            process.send_signal(signal.SIGKILL)
            assert process.wait(30) == -signal.SIGKILL
        assert not list(out.glob("*.parquet"))
        answered_then = Counter(models.answered)
        lines = [
            line for path in out.rglob("records/**/*.jsonl") for line in path.read_bytes().splitlines(keepends=True)
        ]
        on_record = {record.item for line in lines if (record := decode(line)) and record.status is Status.ANSWERED}
        assert 100 < len(on_record) <= answered_then.total()
        models.seen = lambda _: None
        run(file, out, models.url, *PLAIN)
    assert strata_of(out) == {n: "easy" if n % 4 else "medium" if n % 8 == 0 else "unanswerable" for n in range(40)}
    twice = sum(models.answered.values()) - len(models.answered)
    # those in flight at the kill, whose replies no process received in time to record them
    assert twice <= answered_then.total() - len(on_record) <= 16
    # 30 easy ones take 6 samples, the others 3 wrong ones and 4 or 8 of the strong model
    assert len(models.answered) == 30 * 6 + 10 * 3 + 5 * 4 + 5 * 8


def test_answers_without_a_verdict_are_unknown_and_are_not_asked_for_again(tmp_path: Path) -> None:
    file, out = questions(tmp_path / "rl.parquet", 2), tmp_path / "out"
    table = pq.read_table(file).to_pylist()
    table[1]["reward_model"] |= {"style": "model", "ground_truth": "a red ball beside a box"}
    pq.write_table(pq.read_table(file).from_pylist(table, schema=pq.read_schema(file)), file)
    few = [*PLAIN, "--weak-samples", "2", "--strong-samples", "2"]
    with serving(Models(lambda one: True)) as models:
        run(file, out, models.url, *few)
        # without a judge nobody can say whether "4" is that
        assert strata_of(out) == {0: "easy", 1: "ungraded"}
        assert "names no judge" in next(iter(json.loads((out / "filter.json").read_bytes())["failures"]))
        before = models.answered.total()
        said = run(file, out, models.url, *few)
        assert models.answered.total() == before and "weak model: nothing is left to ask" in said
        # another way of grading decides by the replies on record
        said = run(file, out, models.url, *few, "grading.open_answers=text")
        assert models.answered.total() == before and "nothing is left to ask" in said
        assert strata_of(out) == {0: "easy", 1: "unanswerable"}


def test_chunks_give_what_one_chunk_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_ROWS", 3)
    monkeypatch.setattr(rows, "CHUNK_ROWS", 7)
    first, out = questions(tmp_path / "a.parquet", 20), tmp_path / "out"
    table = pq.read_table(first)
    pq.write_table(table.slice(0, 12), first, row_group_size=2)
    second = tmp_path / "b.parquet"
    pq.write_table(table.slice(12), second, row_group_size=2)
    hard = {3, 4, 13}
    with serving(Models(lambda one: one.question in hard and one.model == "large" and one.seed == 7)) as models:
        said = run(first, out, models.url, *PLAIN, str(second))
        assert strata_of(out) == {n: "hard" if n in hard else "unanswerable" for n in range(20)}
        assert max(models.answered.values()) == 1
        assert len(list((out / "records").iterdir())) == 4 and "strong model: chunk 4 of 4" in said
    # the order of the files stays
    rows_of_hard = pq.read_table(out / "hard.parquet").to_pylist()
    assert [row["extra_info"]["record_id"] for row in rows_of_hard] == ["made_up/a:3", "made_up/a:4", "made_up/b:1"]


def test_bad_rows_and_rows_under_a_control_are_named_before_anything_is_asked(tmp_path: Path) -> None:
    file, out = questions(tmp_path / "rl.parquet", 4), tmp_path / "out"
    table = pq.read_table(file).to_pylist()
    table[1]["reward_model"]["ground_truth"] = ""
    table[2]["extra_info"] |= {"variant": "no_tools", "control": "no_tools"}
    pq.write_table(pq.read_table(file).from_pylist(table, schema=pq.read_schema(file)), file)
    with serving(Models(lambda one: True)) as models:
        with pytest.raises(UserError, match=r"^rl\.parquet row 1: .*leave such rows out with --skip-bad"):
            run(file, out, models.url, *PLAIN)
        assert not models.answered
        said = run(file, out, models.url, *PLAIN, "--skip-bad")
    assert "left out: rl.parquet row 2: it is a question under a control (no_tools)" in said
    assert strata_of(out) == {0: "easy", 3: "easy"}


def test_a_plan_asks_nothing_and_says_what_it_may_cost(tmp_path: Path) -> None:
    file, out = questions(tmp_path / "rl.parquet", 10), tmp_path / "out"
    with serving(Models(lambda one: True)) as models:
        said = run(file, out, models.url, *PLAIN, "--plan", "--weak-samples", "4")
        assert not models.answered and not out.exists()
    assert "10 questions, about 10 tokens each" in said
    assert "at least 20 samples of the weak model; at most:" in said
    assert "strong: 80 samples, 80 requests" in said and "with tools" not in said and "judge" not in said
    table = pq.read_table(file).to_pylist()
    table[0]["reward_model"]["style"] = "model"
    pq.write_table(pq.read_table(file).from_pylist(table, schema=pq.read_schema(file)), file)
    assert "1 questions ask a judge where no rule decides" in run(file, out, "http://127.0.0.1:9/v1", *PLAIN, "--plan")


def test_more_samples_keep_those_on_record_and_other_settings_are_refused(tmp_path: Path) -> None:
    file, out = questions(tmp_path / "rl.parquet", 6), tmp_path / "out"
    with serving(Models(lambda one: one.seed < 4)) as models:
        run(file, out, models.url, *PLAIN, "--weak-samples", "4")
        assert set(strata_of(out).values()) == {"easy"} and models.answered.total() == 6 * 3
        run(file, out, models.url, *PLAIN, "--weak-samples", "16")
        assert set(strata_of(out).values()) == {"medium"} and not (out / "easy.parquet").exists()
        assert max(models.answered.values()) == 1
        with pytest.raises(ChangedKey, match=r"sampling\.temperature: 1\.0 -> 0\.5"):
            run(file, out, models.url, *PLAIN, "--weak-samples", "32", "weak.eval.temperature=0.5")
        # also where nothing is left to ask, and the strata of another model would be taken for those of this one
        with pytest.raises(ChangedKey, match=r'model\.asked: "large" -> "larger"'):
            run(file, out, models.url, *PLAIN, "--weak-samples", "16", "strong.eval.model=larger")


def test_with_fewer_samples_only_the_first_ones_count(tmp_path: Path) -> None:
    file, out = questions(tmp_path / "rl.parquet", 6), tmp_path / "out"
    with serving(Models(lambda one: one.model == "large" and one.seed >= 5)) as models:
        run(file, out, models.url, *PLAIN)
        assert set(strata_of(out).values()) == {"hard"}
        asked = models.answered.total()
        run(file, out, models.url, *PLAIN, "--weak-samples", "4", "--strong-samples", "4")
        assert set(strata_of(out).values()) == {"unanswerable"} and models.answered.total() == asked
    (evidence, *_) = evidence_of(out, "unanswerable")
    assert evidence["strong"]["right"] == 0 and evidence["strong"]["of"] == 4


def test_a_file_in_front_costs_no_sample_of_another_one(tmp_path: Path) -> None:
    first, second, out = questions(tmp_path / "b.parquet", 5), questions(tmp_path / "a.parquet", 5), tmp_path / "out"
    with serving(Models(lambda one: True)) as models:
        run(first, out, models.url, *PLAIN)
        once = models.answered.total()
        run(second, out, models.url, *PLAIN, str(first))
        assert models.answered.total() == 2 * once


def test_a_replaced_image_is_another_question(tmp_path: Path) -> None:
    file, out = questions(tmp_path / "rl.parquet", 2), tmp_path / "out"
    table = pq.read_table(file).to_pylist()
    (tmp_path / "photo.png").write_bytes(png(3))
    for row in table:
        row["images"] = ["photo.png"]
    pq.write_table(pa.Table.from_pylist(table), file)
    with serving(Models(lambda one: True)) as models:
        run(file, out, models.url, *PLAIN)
        once = models.answered.total()
        (tmp_path / "photo.png").write_bytes(png(4))
        run(file, out, models.url, *PLAIN)
        assert models.answered.total() == 2 * once


def test_files_of_others_and_folders_that_cannot_be_made_are_named(tmp_path: Path) -> None:
    file = questions(tmp_path / "rl.parquet", 1)
    hard = questions(tmp_path / "hard.parquet", 1).read_bytes()
    with pytest.raises(UserError, match=r"hard\.parquet: is there, and is no filter's"):
        run(file, tmp_path, "http://127.0.0.1:9/v1", *PLAIN)
    assert (tmp_path / "hard.parquet").read_bytes() == hard
    with pytest.raises(UserError, match=r"rl\.parquet: no folder can be made there"):
        run(file, file, "http://127.0.0.1:9/v1", *PLAIN)


@pytest.mark.parametrize(
    ("prompt", "fault"),
    [
        (["<image>\nWhich animal?", "A dog.", "What colour is it?"], "a conversation of 3 messages"),
        (["A: <image> Which is red?"], "an image behind text"),
    ],
)
def test_questions_that_would_be_asked_otherwise_are_refused(prompt: list[str], fault: str, tmp_path: Path) -> None:
    file = questions(tmp_path / "rl.parquet", 2)
    table = pq.read_table(file).to_pylist()
    roles = ("user", "assistant", "user")
    table[1]["prompt"] = [{"role": role, "content": text} for role, text in zip(roles, prompt, strict=False)]
    pq.write_table(pq.read_table(file).from_pylist(table, schema=pq.read_schema(file)), file)
    with pytest.raises(UserError, match=rf"^rl\.parquet row 1: its prompt .*{fault}"):
        run(file, tmp_path / "out", "http://127.0.0.1:9/v1", *PLAIN)


def test_changed_questions_are_asked_anew_and_others_not(tmp_path: Path) -> None:
    file, out = questions(tmp_path / "rl.parquet", 6), tmp_path / "out"
    with serving(Models(lambda one: True)) as models:
        run(file, out, models.url, *PLAIN)
        table = pq.read_table(file).to_pylist()
        table[2]["prompt"][0]["content"] = "<image>\nQuestion 7: how many cubes are there?"
        pq.write_table(pq.read_table(file).from_pylist(table, schema=pq.read_schema(file)), file)
        run(file, out, models.url, *PLAIN)
    assert Counter(one.question for one in models.answered) == dict.fromkeys((0, 1, 2, 3, 4, 5, 7), 6)
    assert max(models.answered.values()) == 1 and strata_of(out) == dict.fromkeys(range(6), "easy")


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["eval.temperature=0"], "weak: eval.temperature=0 draws 8 times the same reply; set it over 0"),
        (
            ["--weak-tool-samples", "8"],
            "weak: eval.loop=plain runs no code; leave it out, or set --weak-tool-samples 0",
        ),
        (["strong.eval.control=blank"], "strong: eval.control and eval.samples are set by the filter itself"),
        (["eval.limit=1"], "weak: eval.limit and eval.score_only are not for a filter"),
        (["--easy", "2"], "--easy: must be over 0 and at most 1"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(tmp_path: Path, more: list[str], reason: str) -> None:
    file = questions(tmp_path / "rl.parquet", 1)
    with pytest.raises(UserError, match=f"^{reason}"):
        run(file, tmp_path / "out", "http://127.0.0.1:9/v1", *PLAIN, *more)
