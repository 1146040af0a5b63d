"""What Hydra's grammar refuses is understood, or one line says what to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from codedance_verl.config.overrides import read_overrides


@pytest.mark.parametrize(
    ("arguments", "read"),
    [
        (["run_dir=~/runs/a"], "run_dir={home}/runs/a"),
        (["data.train_files=[~/a.parquet,~/b.parquet]"], "data.train_files=[{home}/a.parquet,{home}/b.parquet]"),
        (['run_dir="~/a b"'], 'run_dir="{home}/a b"'),
        (["a={path: ~/y}"], "a={{path: {home}/y}}"),
        (["data.train_files=[a.parquet,", "b.parquet]"], "data.train_files=[a.parquet, b.parquet]"),
        (["run_dir=données/é"], 'run_dir="données/é"'),
        (["a=数据"], 'a="数据"'),
        (["a=~root/x"], "a=/root/x"),
        (["a=b c"], "a=b c"),
        (["+a.b={x: 1}"], "+a.b={{x: 1}}"),
        (["a=${b.c}"], "a=${{b.c}}"),
    ],
)
def test_what_is_meant_without_doubt_is_understood(
    arguments: list[str], read: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    found = read_overrides(arguments)
    assert (found.good, found.mistakes) == ((read.format(home=tmp_path),), ())


@pytest.mark.parametrize(
    ("arguments", "key", "says"),
    [
        (["run_dir=x/lr=1e-6"], "run_dir", "a value with = is written in two pairs of quotes: 'run_dir=\"x/lr=1e-6\"'"),
        (["a = 10"], "a", "no spaces around =: a=10"),
        (["a=", "10"], "a", "no spaces around =: a=10"),
        (["a", "=10"], "a", "no spaces around =: a=10"),
        (["a= 10"], "a", "no spaces around =: a=10"),
        (["a='b"], "a", "a quote (') is not closed"),
        (['a="b'], "a", 'a quote (") is not closed'),
        (["a=[1,2"], "a", "a bracket is not closed"),
        (["a=b]"], "a", "a bracket is not closed"),
        (["a={'x': 1}"], "a", "the keys of a mapping have no quotes: 'a={x: 1}'"),
        (["a=(1,2)"], "a", "a list is written a=[1,2]"),
        (["a=1,2"], "a", "a list is written a=[1,2]"),
        (["a=choice(1,2)"], "a", "a run has one value of each key"),
        (["a="], "a", "no value given"),
        (["a=None"], "a", "write a=null"),
        (["a==3"], "a", "one = is enough: a=3"),
        (["a=~"], "a", "$HOME for the home folder"),
        (["a=~nobody-here/x"], "a", "~nobody-here is nobody's home folder"),
        (["a=$HOME/x"], "a", "the shell has not filled in $HOME"),
        (["a=b;c"], "a", "a value with ; "),
        (["a[0]=3"], "a[0]", "a list is given whole: a=[...]"),
        (["3=a"], "3", "3 is no key"),
        (["=3"], "", "what stands before = is no key"),
        (["a@b=c"], "a@b", "verl's own groups"),
        (["hydra.job.name=c"], "hydra.job.name", "Hydra's own settings have no effect"),
        (["~a"], "a", "no key can be left out"),
        (["-lr", "3"], "lr", "-lr 3: must be KEY=VALUE"),
        (["--lr=3"], "lr", "overrides have no dashes: lr=3"),
        (["bogus"], "bogus", "bogus: must be KEY=VALUE; --help says what else there is"),
        (["a=b\nc"], "a", "a=b c: "),
    ],
)
def test_a_mistake_is_one_line_with_its_cure(arguments: list[str], key: str, says: str) -> None:
    (mistake,) = read_overrides(["x=1", *arguments, "y=2"]).mistakes
    assert mistake.key == key
    assert says in mistake.line
    assert "\n" not in mistake.line


def test_the_others_are_kept_in_their_order() -> None:
    assert read_overrides(["x=1", "a==3", "y=[1,2]"]).good == ("x=1", "y=[1,2]")
