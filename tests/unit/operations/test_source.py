"""Parsing of cells: notebook lines in any place, and sessions with more operations than are kept."""

from __future__ import annotations

import ast

from codedance_verl.operations.analysis import analyse
from codedance_verl.operations.source import parse


def test_a_notebook_line_keeps_its_place_in_a_block() -> None:
    tree = parse("if True:\n    %matplotlib inline\n    x = 1\n!pip install y")
    assert tree is not None
    assert ast.unparse(tree) == "if True:\n    pass\n    x = 1\npass"


def test_a_change_of_a_value_after_the_last_operation_that_is_kept_ends_nothing() -> None:
    rotations = "\n".join(f"a{number} = input_image.rotate({number})" for number in range(410))
    changed = "import numpy as np\nq = np.stack([a1, a2])\nq[0:3, 0:4] = np.array(a3)"
    assert analyse([f"{rotations}\n{changed}"]).cells
