"""`codedance reward explain`: what comes out, and what is said of a line that is no rollout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from codedance_verl.cli import main
from codedance_verl.errors import UserError
from codedance_verl.reward.difficulty import DifficultyForm, difficulty
from codedance_verl.reward.explain import explain
from codedance_verl.reward.presets import PRESETS, ROBUST
from codedance_verl.reward.rollout_lines import read_rollouts
from codedance_verl.types import Grade, Verdict
from tests.unit.evaluation.logs import line as log_line
from tests.unit.evaluation.logs import write_log
from tests.unit.isolated.functions import on_path

CALL = "<think>look</think>\n<code>\n```python\nprint(1)\n```\n</code>"
JSON_CALL = '<tool_call>\n{"name": "execute_python_code", "arguments": {"code": "print(1)"}}\n</tool_call>'
OK = {"status": "ok", "stdout": "1\n", "images": []}
ERROR = {"status": "error", "stdout": "", "images": []}
ADDED = {
    "accuracy",
    "format",
    "difficulty",
    "sequence_reward",
    "custom_reward",
    "custom_fault",
    "turn_rewards",
    "score",
    "turn_advantage",
    "masked",
    "verdict",
    "rung",
    "evidence",
}


def line(group: Any, answer: str, *executions: Any, finish: str = "answer", text: str = CALL) -> dict[str, Any]:
    turns = [{"text": text, "execution": execution} for execution in executions]
    return {
        "group": group,
        "data_source": "test",
        "question": "How many?",
        "ground_truth": "3",
        "turns": [*turns, {"text": f"<answer>{answer}</answer>", "execution": None}],
        "finish": finish,
        "note": "kept \N{GREEK SMALL LETTER MU}",
    }


GROUP = [line("a", "3", OK), line("a", "4", ERROR, OK), line("b", "3"), line("a", "3"), line("b", "3", OK)]


def write(folder: Path, *lines: dict[str, Any] | str) -> Path:
    path = folder / "rollouts.jsonl"
    path.write_text("".join((item if isinstance(item, str) else json.dumps(item)) + "\n" for item in lines))
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[dict[str, Any]]:
    with pytest.raises(SystemExit) as ended:
        main(["reward", "explain", *map(str, arguments)])
    assert ended.value.code == 0
    return [json.loads(item) for item in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("preset", PRESETS)
def test_the_same_lines_come_out_with_their_terms(
    preset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = run(capsys, "--preset", preset, write(tmp_path, *GROUP))
    assert len(out) == len(GROUP)
    for given, got in zip(GROUP, out, strict=True):
        assert {key: got[key] for key in given} == given
        assert set(got) == set(given) | ADDED
        assert len(got["turn_rewards"]) == len(got["turn_advantage"]) == len(given["turns"])
    assert [got["accuracy"] for got in out] == [1, 0, 1, 1, 1]
    assert out[0]["difficulty"] == out[1]["difficulty"] == out[3]["difficulty"] > out[2]["difficulty"]


def test_numbers_of_the_default_preset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, write(tmp_path, *GROUP))
    d = ROBUST.difficulty_form
    assert d == "tanh" and out[0]["difficulty"] == pytest.approx(0.0085, abs=1e-3)
    assert out[0]["sequence_reward"] == pytest.approx(0.5 * out[0]["difficulty"] * 0.8)
    assert out[1]["turn_rewards"] == [-0.5, 0.2, 0.0]
    assert out[1]["turn_advantage"][0] == pytest.approx(out[1]["turn_advantage"][2] - 0.5, abs=1e-6)
    assert out[2]["score"] == 1 > out[4]["score"]


def test_constants_can_be_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, *GROUP)
    sigmoid = run(capsys, "--preset", "paper", path)
    tanh = run(capsys, "--preset", "paper", "--set", "difficulty_form=tanh", "--set", "delta=0.3", path)
    assert sigmoid[2]["difficulty"] == pytest.approx(-0.0808, abs=1e-4)
    assert tanh[2]["difficulty"] == pytest.approx(-0.2820, abs=1e-4)


def test_constants_of_the_tool_term_can_be_replaced_and_another_one_chosen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, *GROUP)
    term = [item["sequence_reward"] for item in run(capsys, "--preset", "paper", path)]
    single = ("--set", "tool_term.tool_coef_correct=3", "--set", "tool_term.tool_coef_incorrect=1")
    assert [item["sequence_reward"] for item in run(capsys, "--preset", "paper", *single, path)] == pytest.approx(
        [2 * value for value in term]
    )
    other = run(capsys, "--set", "tool_term.name=per_call", "--set", "tool_term.call_bonus=2", path)
    assert other[0]["sequence_reward"] == 2.0


def test_masked_lines_have_zeros(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut = line("a", "3", OK, finish="length")
    lost = line("a", "3", OK, finish="infrastructure")
    open_question = {**line("a", "3"), "ground_truth": " "}
    out = run(capsys, write(tmp_path, *GROUP[:2], cut, lost, open_question))
    for got in out[2:]:
        assert got["masked"] and got["score"] == 0 and not any(got["turn_advantage"])
    assert [got["score"] for got in out[:2]] == [got["score"] for got in run(capsys, write(tmp_path, *GROUP[:2]))]


def test_groups_may_be_numbers_and_calls_of_any_format(tmp_path: Path) -> None:
    path = write(tmp_path, line(7, "3", OK, text=JSON_CALL), "", line(7, "4"), {**line(8, "3"), "format": "fence"})
    lines = read_rollouts(path)
    assert [(item.number, item.group, item.trajectory.format) for item in lines] == [
        (1, "7", "tool_call"),
        (3, "7", "code"),
        (4, "8", "fence"),
    ]
    assert lines[0].trajectory.turns[0].code == "print(1)"
    assert explain(lines, ROBUST)[0].terms.sequence > 0


def test_a_trajectory_log_can_be_read(tmp_path: Path) -> None:
    lines = [log_line("q0"), log_line("q0", calls=("error", "ok"), answer="4", verdict="wrong")]
    (path,) = write_log(tmp_path, lines)
    right, wrong = explain(read_rollouts(path), ROBUST)
    assert (right.terms.accuracy, wrong.terms.accuracy) == (1, 0)
    assert right.terms.turns == (0, 0) and wrong.terms.turns == (-0.5, 0.2, 0)
    assert right.line.trajectory.record_id == "q0"


def test_a_verdict_of_a_log_holds(tmp_path: Path) -> None:
    judged = {"verdict": "correct", "rung": "judge", "evidence": "the same"}
    lost = {**log_line("q0", verdict="ungraded"), "grade": {"verdict": "ungraded", "rung": "judge"}}
    (path,) = write_log(tmp_path, [{**log_line("q0", answer="three"), "style": "judge", "grade": judged}, lost])
    right, masked = explain(read_rollouts(path), ROBUST)
    assert (right.terms.accuracy, right.grade) == (1, Grade(Verdict.CORRECT, "judge", "the same"))
    assert masked.terms.masked and right.terms.difficulty == pytest.approx(-0.182, abs=1e-3)


def test_branches_and_fatal_failures_are_refused_together(tmp_path: Path) -> None:
    branch = {**line("a", "4"), "sample": 1, "branch": {"parent": 0, "turn": 0, "token": 7}}
    rollouts = read_rollouts(write(tmp_path, {**line("a", "4"), "sample": 0}, branch))
    assert len(explain(rollouts, PRESETS["outcome"])) == 2
    with pytest.raises(UserError, match=r"line 2: a branch .* with reward_preset\.fatal_failures=3"):
        explain(rollouts, PRESETS["fatal_aware"])


def asked(question: str, truth: str, answer: str, **more: object) -> dict[str, Any]:
    return {**line("a", answer), "question": question, "ground_truth": truth, **more}


@pytest.mark.parametrize(
    ("given", "verdict", "rung"),
    [
        (asked("How many apples are there?", "5", "5 apples"), "correct", "number"),
        (asked("How many are there?", "5", "5 apples"), "wrong", "number"),
        (asked("What is it?", "a bicycle", "bike", style="model"), "ungraded", "judge"),
        (asked("What is it?", "a bicycle", "A bicycle.", style="model"), "correct", "exact_text"),
        (asked("What is it?", "a bicycle", "bike", style=None), "wrong", "text"),
        (asked("How many?", "3", "4", style="judge"), "ungraded", "judge"),
        (asked("How many?", "3", "4", style="magic"), "ungraded", "style"),
        ({**line("a", "4"), "finish": "infrastructure"}, "ungraded", "infrastructure"),
    ],
)
def test_the_verdict_is_that_of_training(given: dict[str, Any], verdict: str, rung: str, tmp_path: Path) -> None:
    wrong, found = explain(read_rollouts(write(tmp_path, line("a", "4"), given)), ROBUST)
    assert (found.grade.verdict, found.grade.rule) == (verdict, rung)
    assert found.terms.masked is (verdict == "ungraded")
    mu = 0.5 if verdict == "correct" else 0.0  # what is masked is no wrong answer
    assert wrong.terms.difficulty == pytest.approx(difficulty(mu, form=DifficultyForm.TANH, gamma=4, delta=0.2))


def test_a_grader_and_a_term_of_the_users_own_are_those_of_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_path(tmp_path, monkeypatch)
    given = {"verdict": "correct", "rung": "judge", "evidence": "the same"}
    bonus = {"extra_info": {"bonus": 0.25}, "record_id": "x", "style": "model"}
    path = write(tmp_path, {**line("a", "3"), **bonus}, {**line("a", "4"), **bonus, "grade": given}, line("a", "3"))
    asks = ["--grading", "custom=user_graders:told", "--set", "custom_term=user_terms:of_extra"]
    right, kept, failed = run(capsys, *asks, "--set", "custom_weight=2", path)
    assert (right["verdict"], right["rung"], right["evidence"]) == (
        "correct",
        "custom",
        "3 of test, model, x: How many?",
    )
    assert (right["custom_reward"], right["score"], right["custom_fault"]) == (0.25, 1.5, "")
    assert (kept["rung"], kept["score"]) == ("judge", 1.5)
    assert failed["masked"] and failed["verdict"] == "correct" and failed["score"] == 0
    assert failed["custom_fault"].startswith(
        "reward_preset.custom_term=user_terms:of_extra: KeyError: 'bonus' at user_t"
    )
    anew = run(capsys, *asks, "--regrade", path)[1]
    assert (anew["verdict"], anew["rung"], anew["custom_reward"], anew["score"]) == ("wrong", "custom", 0, 0)


def test_a_log_brings_what_functions_of_the_users_own_look_at(tmp_path: Path) -> None:
    found = read_rollouts(write(tmp_path, {**line("a", "3"), "extra_info": {"bonus": 1}}, line("a", "3")))
    assert [item.trajectory.extra_info for item in found] == [{"bonus": 1}, {}]


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in line("a", "3").items() if name != key}


BAD: list[tuple[Any, str]] = [
    ("{", "it is no JSON"),
    ("[1]", "Expected `object`, got `array`"),
    ('{"group": NaN}', "it is no JSON: NaN is no JSON number"),
    ("[" * 100_000, "it is no JSON"),
    *[
        (without(key), f"Object missing required field `{key}`")
        for key in ("group", "data_source", "question", "ground_truth", "finish")
    ],
    (without("turns"), "Object missing required field `turns`"),
    ({**line("a", "3"), "turns": []}, "turns: has 0 items"),
    ({**line("a", "3"), "turns": ["x"]}, "turns[0]: Expected `object`, got `str`"),
    ({**line("a", "3"), "turns": [{"text": 3, "execution": None}]}, "turns[0].text: Expected `str`, got `int`"),
    ({**line("a", "3"), "turns": [{"text": "x"}]}, "turns[0]: Object missing required field `execution`"),
    (
        line("a", "3", {"status": "fine", "stdout": ""}),
        "turns[0].execution.status: Invalid enum value 'fine', must be one of ok, no_output",
    ),
    (line("a", "3", {"stdout": ""}), "turns[0].execution: Object missing required field `status`"),
    (line("a", "3", "ok"), "turns[0].execution: Expected `object | null`, got `str`"),
    (line("a", "3", finish="done"), "finish: Invalid enum value 'done', must be one of answer, no_action, turn_limit"),
    (line(True, "3"), "group: Expected `int | str`, got `bool`"),
    (line(None, "3"), "group: Expected `int | str`, got `null`"),
    ({**line("a", "3"), "format": "xml"}, "format: 'xml' is none of code, tool_call, fence"),
    ({**line("a", "3"), "extra_info": "x"}, "extra_info: Expected `object | null`, got `str`"),
    ({**line("a", "3"), "style": 3}, "style: Expected `str | null`, got `int`"),
    ({**line("a", "3"), "grade": "right"}, "grade: Expected `object | null`, got `str`"),
    ({**line("a", "3"), "grade": {}}, "grade: Object missing required field `verdict`"),
    (
        {**line("a", "3"), "grade": {"verdict": "fine"}},
        "grade.verdict: Invalid enum value 'fine', must be one of correct, wrong, ungraded",
    ),
]


@pytest.mark.parametrize(("bad", "told"), BAD, ids=[told[:40] for _, told in BAD])
def test_a_bad_line_is_named_with_its_file(
    bad: Any, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, GROUP[0], bad)
    with pytest.raises(SystemExit) as ended:
        main(["reward", "explain", str(path)])
    captured = capsys.readouterr()
    assert ended.value.code == 2 and captured.out == ""
    assert captured.err.startswith(f"error: {path}:2: not a rollout: ") and told in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--preset", "best"], "--preset best: must be one of robust, paper"),
        (["--set", "gamma"], "--set gamma: must be KEY=VALUE"),
        (["--set", "delta=0.1", "--set", "gamma=["], "--set gamma=[: the value of gamma cannot be read (while parsing"),
        (["--set", "mask_finishes=[length"], "--set mask_finishes=[length: the value of mask_finishes cannot be read"),
        (["--set", "gamma=${x"], "--set gamma=${x: the value of gamma cannot be read"),
        (["--set", "[=1"], "--set [=1: must be KEY=VALUE"),
        (["--set", "=1"], "--set =1: must be KEY=VALUE"),
        (["--set", "gamma=0"], "reward_preset.gamma=0: must be a number from 0.01 to 100"),
        (["--set", "gama=1"], "reward_preset.gama: unknown key"),
        (["--set", "custom_term=a"], "reward_preset.custom_term=a: must be package.module:function"),
        (["--set", "custom_term=no_such:f"], "reward_preset.custom_term=no_such:f: module no_such cannot be imported"),
        (["--grading", "custom=no_such:f"], "grading.custom=no_such:f: module no_such cannot be imported"),
        (["--grading", "custom"], "--grading custom: must be KEY=VALUE, such as custom=my_grader:grade"),
        (["--grading", "judge={model: x}"], "--grading judge: no judge is asked here"),
        (["--grading", "custm=a:b"], "grading.custm: unknown key; known are relative_tolerance"),
        (["--plot", "x.png", "--group", "z"], "--group z: no such group in the file; there are a, b"),
        (["--plot", "/nonexistent/x.png"], "--plot /nonexistent/x.png: cannot be written"),
    ],
)
def test_bad_options_are_named(
    arguments: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["reward", "explain", str(write(tmp_path, *GROUP)), *arguments])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {told}") and said.count("\n") == 1


def test_files_that_hold_nothing_or_are_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path, told in ((write(tmp_path, ""), "holds no rollout"), (tmp_path / "none", "cannot be read (No such file")):
        with pytest.raises(SystemExit) as ended:
            main(["reward", "explain", str(path)])
        assert ended.value.code == 2 and told in capsys.readouterr().err


def test_the_plot_is_a_png(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "group.png"
    cut = line("b", "3", OK, finish="length")
    run(capsys, write(tmp_path, *GROUP, cut), "--plot", picture, "--group", "b")
    with Image.open(picture) as image:
        assert image.format == "PNG" and image.width > 1000
