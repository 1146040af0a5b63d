"""Facts of code by its syntax tree."""

from __future__ import annotations

import pytest

from codedance_verl.harness.call_code import CodeFacts, facts_of, imports_of


def facts(*cells: str) -> CodeFacts:
    return facts_of(cells, [True] * len(cells))[-1]


@pytest.mark.parametrize(
    ("code", "reads", "computes"),
    [
        ("c = input_image.crop((0, 0, 9, 9))\nprint(3)", True, False),
        ("print(3)", False, False),
        ("print(12.5 * 3 + 1 / 7)", False, True),
        ("print(input_image.size)", False, False),
        ("this is no python", False, False),
    ],
)
def test_what_it_reads_and_computes(code: str, reads: bool, computes: bool) -> None:
    found = facts(code)
    assert (found.reads_image, found.computes) == (reads, computes)


def test_a_text_that_is_split_holds_choices_and_no_constants() -> None:
    code = "for name in 'red green blue'.split():\n    print(name)\nprint('a, b'.partition(', '), 'yellow')"
    assert facts(code).constants.split() == ["yellow"]


def test_constants_of_a_test_or_a_table_are_left_out() -> None:
    code = "a = 'red'\nprint(f'colour {a}: blue')\nif a == 'green':\n    print('black')\n"
    code += "print(['white'][0], 'x' if a else 'y')"
    words = facts(code).constants.split()
    assert {"red", "colour", ":", "blue"} <= set(words) and not {"green", "black", "white", "x", "y"} & set(words)


@pytest.mark.parametrize(
    "code",
    [
        "input_image.crop((10, 20, 40, 50))",
        "input_image.crop(box=[10, 20, 40, 50])",
        "box = (10, 20, 40, 50)\ninput_image.crop(box)",
        "x0, y0 = 10, 20\nimg.crop((x0, y0, 40.0, 50))",
        "import numpy as np\nnp.array(input_image)[20:50, 10:40].mean()",
        "a[20:50, 10:40, 0]",
    ],
)
def test_boxes_of_crops_and_slices(code: str) -> None:
    assert facts(code).boxes == ((10, 20, 40, 50),)


def test_names_of_earlier_cells_are_known() -> None:
    assert facts("x = 10", "input_image.crop((x, 0, 30, 9))").boxes == ((10, 0, 30, 9),)


@pytest.mark.parametrize("code", ["input_image.crop(f())", "a[1:, 2:3]", "input_image.crop((9, 9, 3, 3))", "a.crop()"])
def test_no_box_where_it_is_not_constant(code: str) -> None:
    assert facts(code).boxes == ()


def test_imports_and_definitions_are_kept() -> None:
    kept = imports_of("import numpy as np\nx = 3\ndef f():\n    return 1\nprint(x)")
    assert kept == "import numpy as np\n\ndef f():\n    return 1" and imports_of("no python at all") == ""


def test_definitions_that_nest_too_deep_are_not_written_out() -> None:
    deep = "def f():\n    return " + "+".join("1" * 900)
    assert imports_of(deep) is None and imports_of("1" + "+1" * 900) == ""
