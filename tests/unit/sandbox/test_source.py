"""Cell text that is no Python becomes Python, with the same lines; Python stays as it is."""

from __future__ import annotations

import ast
import builtins
import time

import pytest

from sandbox_image.codedance_interpreter import magics, source


@pytest.mark.parametrize(
    "code",
    [
        "a = 7\nb = (a\n% 3)",
        "s = '''\n%matplotlib inline\n!ls\n'''",
        "print('50%')  # %time",
        "x = 5 ; y = 6",
        "",
        "# only a comment",
        "x = '\u00a0'",
    ],
)
def test_python_is_left_as_it_is(code: str) -> None:
    assert source.parse(code, "<cell 1>")[1] == code


@pytest.mark.parametrize(
    ("code", "becomes"),
    [
        ("\ufeffprint(1)", "print(1)"),
        ("x\u00a0= 1\nprint(\u200bx)", "x = 1\nprint(x)"),
        ("  x = 1\ny = 2", "x = 1\ny = 2"),
        ("    x = 1\n    if x:\n        y = 2", "x = 1\nif x:\n    y = 2"),
        ("%matplotlib inline\nx = 1", "__notebook__.magic('matplotlib', 'inline')\nx = 1"),
        ("if x:\n    !ls -l\n", "if x:\n    __notebook__.shell('ls -l')"),
        ("files = !ls *.png", "files = __notebook__.shell('ls *.png')"),
        ("%time x = f(3)", "__notebook__.start(); x = f(3); __notebook__.stop('time')"),
        ("%timeit -n 10 -r 3 f(x)", "__notebook__.timed('timeit', lambda: (f(x)))"),
        ("%%time\nx = 1", "__notebook__.begin_cell('time')\nx = 1"),
        ("# why\n%%time\nx = 1", "\n__notebook__.begin_cell('time')\nx = 1"),
        ("%%bash\nls; echo 'a", "__notebook__.cell_magic('bash', '')"),
        ("%%writefile a.py\nx = 1\n", "__notebook__.write_file('a.py', 'x = 1\\n')"),
        ("x?", "__notebook__.help('x')"),
        ("%time f(x)  # comment", "__notebook__.timed('time', lambda: (f(x)))"),
        ("%time x = f()  # c", "__notebook__.start(); x = f(); __notebook__.stop('time')"),
        ("%%writefile a.txt\n“quoted”\u00a0b\n", "__notebook__.write_file('a.txt', '“quoted”\\xa0b\\n')"),
        ("!echo “hi”", "__notebook__.shell('echo “hi”')"),
        ("!ls\ns = 'a\u2028b'", "__notebook__.shell('ls')\ns = 'a\u2028b'"),
        ("%%time\n!pip install a\n", "__notebook__.begin_cell('time')\n__notebook__.shell('pip install a')"),
    ],
)
def test_habits_become_python(code: str, becomes: str) -> None:
    assert source.parse(code, "<cell 1>")[1] == becomes


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("%matplotlib inline\nx = = 1", 2),
        ("if x:\npass", 2),
        ("x = (1\ny = 2\n%time", 1),
        ("“a”", 1),
        ("s = ('%d %s'\n     % (1 2))\n", 2),
    ],
)
def test_what_is_wrong_otherwise_stays_an_error_of_its_line(code: str, line: int) -> None:
    with pytest.raises(SyntaxError) as caught:
        source.parse(code, "<cell 1>")
    assert caught.value.lineno == line


def test_a_cell_of_faults_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MOST_REPAIRS", 5)
    with pytest.raises(SyntaxError):
        source.parse("!ls\n" * 50, "<cell 1>")


@pytest.mark.parametrize(
    ("code", "silenced"),
    [
        ("x;", True),
        ("x; # shown", True),
        ("(x);", True),
        ("x # a;b", False),
        ("'a;b'", False),
        ("'é;' ;", True),
        ("x\n", False),
        ("f(\n1\n) ;\n# end\n", True),
        ("x\n# a; b", False),
        ("x = 1\n\f\n'a;b'.split(';')", False),
        ("x = 'a\u2028'\r\n'a;b'.split(';')", False),
    ],
)
def test_a_semicolon_after_the_trailing_expression_silences_it(code: str, silenced: bool) -> None:
    tree = ast.parse(code)
    last = tree.body[-1]
    assert isinstance(last, ast.Expr)
    assert source.is_silenced(code, last.value) == silenced


def test_timed_code_gives_its_value_and_says_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    notebook = magics.Notebook()
    began = time.perf_counter()
    assert notebook.timed("time", lambda: 7) == 7 and notebook.timed("timeit", lambda: 7) is None
    assert time.perf_counter() > began
    assert capsys.readouterr().out.count("Wall time: ") == 2
    assert not hasattr(builtins, "__notebook__")
