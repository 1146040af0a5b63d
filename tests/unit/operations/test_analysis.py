"""Analysis of sessions: what is live, what it derives from, and what follows what."""

from __future__ import annotations

import pytest

from codedance_verl.operations.analysis import CellState, analyse
from codedance_verl.operations.catalogue import Category
from codedance_verl.operations.graph import MOST_OPERATIONS

CROP_THEN_TURN = ("part = input_image.crop((0, 0, 9, 9))", "part.rotate(90)")


def calls(*cells: str) -> set[str]:
    return set(analyse(cells).calls)


def pairs(*cells: str) -> dict[str, bool]:
    """Compositions with whether they lie in different cells."""
    return {str(found): found.across for found in analyse(cells).compositions}


def test_a_session_goes_on_over_cells() -> None:
    found = analyse(CROP_THEN_TURN)
    assert [(item.category, item.turn, item.line) for item in found.operations] == [
        (Category.CROP, 0, 1),
        (Category.ROTATE, 1, 1),
    ]
    assert all(item.image for item in found.operations) and not found.dead
    assert pairs(*CROP_THEN_TURN) == {"crop > rotate": True}


def test_the_same_program_in_one_cell_composes_within_it() -> None:
    assert pairs("\n".join(CROP_THEN_TURN)) == {"crop > rotate": False}


def test_chains_follow_the_data_not_the_order_of_lines() -> None:
    code = "a = input_image.rotate(5)\nb = input_image.crop((0, 0, 9, 9))\nc = a.resize((5, 5))\nprint(b, c)"
    assert pairs(code) == {"rotate > resize": False}


def test_a_chain_of_three() -> None:
    code = "input_image.crop((0, 0, 9, 9)).resize((50, 50)).convert('L')"
    assert set(pairs(code)) == {"crop > resize", "resize > colour", "crop > resize > colour"}


def test_a_box_that_was_found_leads_to_the_crop() -> None:
    assert set(pairs("input_image.crop(input_image.getbbox())")) == {"edges > crop"}


def test_drawing_in_place_is_part_of_the_flow() -> None:
    code = (
        "from PIL import ImageDraw\nimage = input_image.crop((0, 0, 9, 9))\npen = ImageDraw.Draw(image)\n"
        "pen.line([(0, 0), (5, 5)])\nimage.resize((50, 50))"
    )
    assert set(pairs(code)) == {"crop > draw", "draw > resize", "crop > draw > resize"}


def test_what_only_decides_is_live_but_composes_with_nothing() -> None:
    code = "import numpy as np\nif np.array(input_image).mean() > 100:\n    print('light')\nelse:\n    print('dark')"
    found = analyse([code])
    assert found.categories == {Category.STATISTICS} and not found.compositions


def test_results_that_nobody_sees_are_dead() -> None:
    found = analyse(["small = input_image.resize((5, 5))\nprint('enlarged')"])
    assert found.categories == {Category.NONE} and not found.operations
    assert [item.category for item in found.dead] == [Category.RESIZE]
    assert found.idle() == (0,)


def test_the_arithmetic_of_a_box_is_a_means() -> None:
    found = analyse(["w, h = input_image.size\nbox = (0, 0, w // 2, h // 2)\nprint(box)\ninput_image.crop(box)"])
    assert found.categories == {Category.CROP} and not found.dead
    assert {item.category for item in found.means} == {Category.ARITHMETIC}


def test_a_value_that_a_later_cell_shows_is_live_in_its_own() -> None:
    found = analyse(["small = input_image.resize((5, 5))", "print('ok')", "small"])
    assert [(item.category, item.turn) for item in found.operations] == [(Category.RESIZE, 0)]
    assert found.idle() == (1, 2)


def test_a_function_works_where_it_is_called() -> None:
    cells = ["def cut(box):\n    return input_image.crop(box)", "cut((0, 0, 5, 5))", "cut((5, 5, 9, 9))"]
    assert [item.turn for item in analyse(cells).operations] == [1, 2]


@pytest.mark.parametrize(
    ("code", "image"),
    [
        (
            "from PIL import Image, ImageDraw\nx = Image.new('L', (9, 9))\nImageDraw.Draw(x).line([0, 0, 9, 9])\nx",
            False,
        ),
        ("print(3 * 4)", False),
        ("w, h = input_image.size\nprint(w * h)", False),
        ("from PIL import Image\nImage.open('input_image.png').rotate(5)", True),
        ("from PIL import Image\nImage.open('other.png').rotate(5)", False),
        ("import cv2\nname = 'input_image_0.png'\ncv2.flip(cv2.imread(name), 0)", True),
        ("import numpy as np\nprint(np.array(input_image).mean() / 255)", True),
    ],
)
def test_operations_on_the_image_and_others(code: str, image: bool) -> None:
    found = analyse([code]).operations
    assert found and all(item.image is image for item in found)


def test_a_file_that_was_saved_keeps_what_it_derives_from() -> None:
    cells = [
        "input_image.crop((0, 0, 9, 9)).save('a/part.png')",
        "from PIL import Image\nImage.open('part.png').rotate(9)",
    ]
    assert pairs(*cells) == {"crop > rotate": True}


def test_cells_that_failed_have_no_live_operation() -> None:
    found = analyse(["part = input_image.crop((0, 0, 9, 9))\npart", "part.rotate(9)"], ran=[False, True])
    assert [item.category for item in found.operations] == [Category.ROTATE]
    assert Category.CROP in {item.category for item in found.dead}


def test_code_that_is_no_python_is_counted_apart() -> None:
    found = analyse(["for the image, crop it", "input_image.rotate(5)", ""])
    assert found.cells == (CellState.NO_PYTHON, CellState.ANALYSED, CellState.ANALYSED)
    assert found.categories == {Category.ROTATE} and found.idle() == (2,)
    assert analyse(["not python !"]).categories == frozenset()
    assert analyse([]).categories == frozenset()


def test_habits_of_notebooks_are_no_fault() -> None:
    assert analyse(["%matplotlib inline\n!pip install x\ninput_image.rotate(5)"]).categories == {Category.ROTATE}
    assert analyse(["    x = input_image.rotate(5)\n    x"]).categories == {Category.ROTATE}


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("import cv2 as c\nimport numpy as n\nc.Canny(n.array(input_image), 1, 2)", "cv2.Canny"),
        ("from cv2 import Canny as edges\nedges(input_image, 1, 2)", "cv2.Canny"),
        ("from scipy.ndimage import measurements\nprint(measurements.label(input_image))", "scipy.ndimage.label"),
        ("import numpy as np\nprint(np.array(input_image).mean())", "numpy.mean"),
        ("import numpy as np\nprint(np.mean(np.array(input_image)))", "numpy.mean"),
        ("import cv2\nclahe = cv2.createCLAHE(2.0)\nclahe.apply(input_image)", "cv2.createCLAHE().apply"),
        ("from PIL.Image import Image\nImage.rotate(input_image, 5)", "PIL.Image.Image.rotate"),
        ("turn = getattr(input_image, 'ro' + 'tate')\nturn(5)", "PIL.Image.Image.rotate"),
        (
            "for name in ('rotate', 'crop'):\n    x = getattr(input_image, name)\nx((0, 0, 5, 5))",
            "PIL.Image.Image.crop",
        ),
    ],
)
def test_names_are_resolved(code: str, name: str) -> None:
    assert name in calls(code)


def test_what_is_not_known_stays_so() -> None:
    assert analyse(["print(something.crop((0, 0, 9, 9)))"]).categories == {Category.NONE}
    assert analyse(["import toolbox\nprint(toolbox.crop(input_image))"]).categories == {Category.NONE}
    # it may hand on what it was given
    assert analyse(["import toolbox\ntoolbox.keep(input_image.rotate(5))"]).categories == {Category.ROTATE}


HOSTILE = {
    "loops": "".join("    " * depth + f"for i{depth} in range(9):\n" for depth in range(18)) + "    " * 18 + "x = 1",
    "branches": "\n".join(f"a{i} = {i}" for i in range(2000))
    + "\n"
    + "\n".join(f"if z{i}: b = 2" for i in range(3000)),
    "calls": "".join(f"def f{i}(x):\n    return f{i + 1}(x) + f{i + 1}(x)\n" for i in range(40)) + "print(f0(1))",
    "recursion": "def f(x):\n    return f(f(f(x)))\nprint(f(input_image))",
    "operations": "x = input_image\n" + "\n".join(f"x = x.crop((0, 0, {i}, 1))" for i in range(2000)) + "\nx",
    "lists": "x = [1]\n" + "x = [x, x, x, x, x, x]\n" * 2000 + "print(x)",
    "itself": "x = []\nx.append(x)\nd = {'x': x}\nd['d'] = d\nprint(x, d)",
    "exec": "s = 'exec(s)'\nexec(s)",
    "objects": "class A:\n    def __init__(self, x):\n        self.x = A(x)\nA(input_image)",
    "text": "x = 'a'\n" + "x = x + x\n" * 5000 + "print(x)",
    "brackets": "(" * 5000 + ")" * 5000,
    "signs": "-" * 50000 + "1",
    "attributes": "a" + ".b" * 20000,
    "sum": "+".join(["1"] * 20000),
    "figures": "import matplotlib.pyplot as plt\n" + "plt.figure()\nplt.imshow(input_image)\n" * 1500,
    "comprehensions": "print(" + "[" * 30 + "1" + "".join(f" for a{i} in range(9)]" for i in range(30)) + ")",
    "long": "print(1)\n" * 50_000,
    "null": "print(1)\0",
    "surrogate": "print('\ud800')",
}


# the names of those that steps, names, depth or operations are counted against; the others are small, or do not parse
COUNTED_OUT = ("loops", "branches", "calls", "operations", "exec", "text", "figures", "long")


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_code_ends_at_a_bound_and_without_an_error(name: str) -> None:
    found = analyse([HOSTILE[name]])
    assert len(found.cells) == 1
    assert name not in COUNTED_OUT or found.cells == (CellState.TOO_LARGE,)
    assert len(found.operations) + len(found.means) + len(found.dead) <= MOST_OPERATIONS


def test_code_that_is_too_large_is_counted_apart() -> None:
    found = analyse([HOSTILE["long"], HOSTILE["loops"], "input_image.rotate(5)"])
    assert found.cells == (CellState.TOO_LARGE, CellState.TOO_LARGE, CellState.ANALYSED)
    assert analyse(["x = 1"] * 70).cells[-1] is CellState.TOO_LARGE


def test_nothing_is_run() -> None:
    code = "import os\nos.environ['OPERATIONS_RAN'] = '1'\nexec(\"os.environ['OPERATIONS_RAN'] = '1'\")\n1 / 0"
    analyse([code])
    import os

    assert "OPERATIONS_RAN" not in os.environ


def test_names_of_outer_functions() -> None:
    code = (
        "def outer():\n    shown = None\n    def inner():\n        nonlocal shown\n"
        "        shown = input_image.rotate(5)\n    inner()\n    return shown\nouter()"
    )
    assert analyse([code]).categories == {Category.ROTATE}


def test_a_figure_is_made_once() -> None:
    code = "import matplotlib.pyplot as plt\nplt.figure().gca().imshow(input_image)\nplt.close()\nprint(1)"
    assert analyse([code]).categories == {Category.NONE}


def test_marks_are_told_from_plots_by_the_axes() -> None:
    code = (
        "import matplotlib.pyplot as plt\nfig, ax = plt.subplots(1, 2)\nax[0].imshow(input_image)\n"
        "ax[1].plot([1, 2])\nax[1].axvline(1)\nplt.show()"
    )
    assert analyse([code]).categories == {Category.DISPLAY}
    assert analyse([code.replace("ax[1].axvline", "ax[0].axvline")]).categories == {Category.DISPLAY, Category.DRAW}
