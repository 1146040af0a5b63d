"""Synthetic calls with known evidence: scenes, and trajectories whose use of the evidence is known by construction."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw

from codedance_verl.harness.altered_images import Box
from codedance_verl.harness.call_use import Use

COLOURS = {
    "red": (210, 40, 40),
    "green": (50, 170, 60),
    "blue": (40, 70, 200),
    "yellow": (230, 210, 50),
    "purple": (130, 50, 170),
    "orange": (240, 140, 30),
}
_RADIUS, _CELL = 6, 26


@dataclass(frozen=True)
class Scene:
    """Image with `count` discs, or a patch, of one colour in a box, and others in a second box of the same size.

    Attributes:
        png: encoded image.
        size: width and height in pixels.
        box, other_box: evidence, and a place that holds none.
        colour, count: of the evidence; `other_colour` and `other_count` are different.
    """

    png: bytes
    size: tuple[int, int]
    box: Box
    other_box: Box
    colour: str
    count: int
    other_colour: str
    other_count: int


@dataclass(frozen=True)
class Sample:
    """Trajectory: its cells, the use that each makes of the evidence, its final answer.

    Attributes:
        name: of its kind.
        hidden: the model is not shown the displayed images.
        choices, question: options and question, where the answer is a letter or a sentence.
    """

    name: str
    scene: Scene
    cells: tuple[str, ...]
    uses: tuple[Use, ...]
    answer: str
    hidden: bool = False
    choices: tuple[str, ...] = ()
    question: str = ""


def samples(calls: int, seed: int) -> Iterator[Sample]:
    """Samples with that many calls at least, of all kinds in turn; those apart from the classes are not among them."""
    for number, kind in enumerate(itertools.cycle(_KINDS)):
        if calls <= 0:
            return
        found = _sample(kind, seed + number)
        calls -= len(found.cells)
        yield found


def samples_apart(seed: int) -> Iterator[Sample]:
    """Samples of calls that have no class, and of hostile ones."""
    return (_sample(kind, seed + number) for number, kind in enumerate(_APART))


def _sample(kind: Kind, seed: int) -> Sample:
    rng = np.random.default_rng(seed)
    return kind(scene(rng, patch="patch" in kind.__name__), rng)


def scene(rng: np.random.Generator, patch: bool) -> Scene:
    """Random scene; `patch`: the boxes are filled with their colours."""
    width, height = int(rng.integers(320, 481)), int(rng.integers(240, 361))
    image = Image.fromarray(np.clip(165 + rng.normal(0, 5, (height, width, 3)), 0, 255).astype(np.uint8))
    colour, other_colour = (str(name) for name in rng.choice(list(COLOURS), 2, replace=False))
    count, other_count = (int(number) for number in rng.choice(np.arange(2, 9), 2, replace=False))
    across, down = 4 * _CELL, 3 * _CELL
    left = int(rng.integers(0, width // 2 - across))
    right = int(rng.integers(width // 2, width - across))
    tops = rng.integers(0, height - down, 2)
    boxes = [(x, int(y), x + across, int(y) + down) for x, y in zip((left, right), tops, strict=True)]
    box, other = boxes if rng.random() < 0.5 else boxes[::-1]
    for place, name, number in ((box, colour, count), (other, other_colour, other_count)):
        _draw(image, place, name, number, patch, rng)
    file = io.BytesIO()
    image.save(file, "PNG")
    return Scene(file.getvalue(), image.size, box, other, colour, count, other_colour, other_count)


def _draw(image: Image.Image, box: Box, colour: str, count: int, patch: bool, rng: np.random.Generator) -> None:
    pen = ImageDraw.Draw(image)
    if patch:
        pen.rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=COLOURS[colour])
        return
    for cell in rng.choice(12, count, replace=False):
        x, y = box[0] + _CELL * (int(cell) % 4) + _CELL // 2, box[1] + _CELL * (int(cell) // 4) + _CELL // 2
        pen.ellipse((x - _RADIUS, y - _RADIUS, x + _RADIUS, y + _RADIUS), fill=COLOURS[colour])


# ---- code ----

Kind = Callable[[Scene, np.random.Generator], Sample]


def _count_code(colour: str, within: str) -> str:
    return (
        f"import cv2, numpy as np\na = np.array({within}).astype(int)\n"
        f"near = (np.abs(a - np.array({COLOURS[colour]})).max(axis=2) < 40).astype(np.uint8)\n"
        "n, _ = cv2.connectedComponents(near)\n"
    )


def _slice(box: Box) -> str:
    return f"[{box[1]}:{box[3]}, {box[0]}:{box[2]}]"


def _one(name: str, scene: Scene, code: str, use: Use, answer: object, hidden: bool = False) -> Sample:
    return Sample(name, scene, (code,), (use,), str(answer), hidden)


# ---- used ----


def _shows_crop(s: Scene, rng: np.random.Generator) -> Sample:
    scale = int(rng.integers(1, 5))
    code = f"c = input_image.crop({s.box})\ndisplay(c.resize((c.width * {scale}, c.height * {scale})))"
    return _one("crop shown", s, code, Use.USED, s.count)


def _shows_part(s: Scene, rng: np.random.Generator) -> Sample:
    wide = (max(s.box[0] - 30, 0), max(s.box[1] - 20, 0), s.box[2] + int(rng.integers(0, 40)), s.box[3] + 10)
    code = (
        f"from PIL import ImageEnhance\nprint('enlarged')\nImageEnhance.Contrast(input_image.crop({wide})).enhance(1.5)"
    )
    return _one("contrast of a wide crop", s, f"{code}.show()", Use.USED, s.colour)


def _marks(s: Scene, rng: np.random.Generator) -> Sample:
    code = f"from PIL import ImageDraw\nm = input_image.copy()\nImageDraw.Draw(m).rectangle({s.box}, outline='red')\nm"
    return _one("evidence marked", s, code, Use.USED, s.count)


def _plots(s: Scene, rng: np.random.Generator) -> Sample:
    code = "import numpy as np\nimport matplotlib.pyplot as plt\n"
    code += f"plt.imshow(np.array(input_image){_slice(s.box)})\nplt.title('part')\nplt.show()"
    return _one("slice plotted", s, code, Use.USED, s.count)


def _counts(s: Scene, rng: np.random.Generator) -> Sample:
    code = _count_code(s.colour, f"input_image.crop({s.box})") + "print('found', n - 1)"
    return _one("count in the box", s, code, Use.USED, s.count)


def _counts_all(s: Scene, rng: np.random.Generator) -> Sample:
    return _one("count in the image", s, _count_code(s.colour, "input_image") + "n - 1", Use.USED, s.count)


def _colour_of_patch(s: Scene, rng: np.random.Generator) -> Sample:
    code = f"import numpy as np\nm = np.array(input_image){_slice(s.box)}.reshape(-1, 3).mean(axis=0)\nprint(m)"
    return _one("mean colour", s, code, Use.USED, s.colour)


def _name_of_patch(s: Scene, rng: np.random.Generator) -> Sample:
    code = f"names = {COLOURS}\nx, y = {s.box[0] + 40}, {s.box[1] + 30}\np = input_image.getpixel((x, y))\n"
    code += "print(min(names, key=lambda k: sum(abs(i - j) for i, j in zip(names[k], p))))"
    return _one("name of a colour", s, code, Use.USED, s.colour)


def _compares_patch(s: Scene, rng: np.random.Generator) -> Sample:
    code = "import numpy as np\na = np.array(input_image).astype(int)\n"
    code += f"d = np.abs(a{_slice(s.box)} - np.array({COLOURS[s.colour]})).mean()\nprint('yes' if d < 30 else 'no')"
    return _one("test of a colour", s, code, Use.USED, "yes")


def _keeps_then_shows(s: Scene, rng: np.random.Generator) -> Sample:
    cells = (f"part = input_image.crop({s.box})", "display(part.resize((300, 220)))")
    return Sample("kept, then shown", s, cells, (Use.USED, Use.USED), str(s.count))


def _finds_then_crops(s: Scene, rng: np.random.Generator) -> Sample:
    find = "import numpy as np\na = np.array(input_image).astype(int)\n"
    find += f"ys, xs = np.nonzero(np.abs(a - np.array({COLOURS[s.colour]})).max(axis=2) < 40)\n"
    pixels = np.asarray(Image.open(io.BytesIO(s.png))).astype(int)
    ys, xs = np.nonzero(np.abs(pixels - np.array(COLOURS[s.colour])).max(axis=2) < 40)
    box = tuple(int(edge) for edge in (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1))
    cells = (f"{find}print(xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)", f"display(input_image.crop({box}))")
    return Sample("found, then cropped", s, cells, (Use.USED, Use.USED), str(s.count))


def _half_of_it(s: Scene, rng: np.random.Generator) -> Sample:
    half = (s.box[0] + 52, s.box[1], s.box[2] + 40, s.box[3])
    return _one("half of the evidence", s, f"display(input_image.crop({half}))", Use.USED, s.count)


def _edges(s: Scene, rng: np.random.Generator) -> Sample:
    code = "import cv2, numpy as np\nfrom PIL import Image\n"
    code += "g = np.array(input_image.convert('L').rotate(90, expand=True))\n"
    return _one("edges", s, f"{code}Image.fromarray(cv2.Canny(g, 60, 150))", Use.USED, s.count)


def _side(s: Scene, rng: np.random.Generator) -> Sample:
    code = "import numpy as np\na = np.array(input_image).astype(int)\n"
    code += f"xs = np.nonzero(np.abs(a - np.array({COLOURS[s.colour]})).max(axis=2) < 40)[1]\n"
    code += "print('left' if xs.mean() < a.shape[1] / 2 else 'right')"
    side = "left" if s.box[0] < s.other_box[0] else "right"
    return _one("side of the image", s, code, Use.USED, f"It is on the {side}.")


def _option_of_patch(s: Scene, rng: np.random.Generator) -> Sample:
    code = f"import numpy as np\nprint(np.array(input_image.crop({s.box})).mean(axis=(0, 1)))"
    choices = tuple(sorted(COLOURS))
    letter = "ABCDEF"[choices.index(s.colour)]
    return replace(_one("letter of an option", s, code, Use.USED, letter), choices=choices)


def _counts_in_sentence(s: Scene, rng: np.random.Generator) -> Sample:
    code = _count_code(s.colour, f"input_image.crop({s.box})") + "print(f'discs: {n - 1}')"
    answer = f"There are {s.count} {s.colour} discs in the image."
    return replace(
        _one("count, answered in a sentence", s, code, Use.USED, answer), question="How many discs are there?"
    )


def _shown_with_answer(s: Scene, rng: np.random.Generator) -> Sample:
    code = f"print('the answer should be {s.count}')\ninput_image.crop({s.box})"
    return _one("evidence shown beside an answer", s, code, Use.USED, s.count)


# ---- unused ----


def _prints_brightness(s: Scene, rng: np.random.Generator) -> Sample:
    code = f"import numpy as np\nprint('brightness %.1f' % np.array(input_image.crop({s.box}).convert('L')).mean())"
    return _one("brightness, asked for a word", s, code, Use.UNUSED, "left" if rng.random() < 0.5 else "a bottle")


def _count_not_taken(s: Scene, rng: np.random.Generator) -> Sample:
    code = _count_code(s.colour, f"input_image.crop({s.box})") + "print(n - 1)"
    return _one("another count answered", s, code, Use.UNUSED, s.count + int(rng.integers(1, 4)))


def _colour_of_patch_not_taken(s: Scene, rng: np.random.Generator) -> Sample:
    code = f"import numpy as np\nm = np.array(input_image.crop({s.box})).mean(axis=(0, 1))\nprint(m.round(1).tolist())"
    return _one("another colour answered", s, code, Use.UNUSED, s.other_colour)


def _not_shown(s: Scene, rng: np.random.Generator) -> Sample:
    return _one("crop not shown to the model", s, f"input_image.crop({s.box})", Use.UNUSED, s.count, hidden=True)


def _prints_histogram(s: Scene, rng: np.random.Generator) -> Sample:
    code = "import cv2, numpy as np\ng = cv2.cvtColor(np.array(input_image), cv2.COLOR_RGB2GRAY)\n"
    return _one("histogram", s, code + "print(np.histogram(g, 64)[0])", Use.UNUSED, s.colour)


# ---- decorative ----


def _wrong_crop(s: Scene, rng: np.random.Generator) -> Sample:
    code = f"c = input_image.crop({s.other_box})\nc.resize((c.width * 3, c.height * 3))"
    return _one("crop of another place", s, code, Use.DECORATIVE, s.count)


def _wrong_slice(s: Scene, rng: np.random.Generator) -> Sample:
    code = "import numpy as np\nfrom PIL import Image\n"
    code += f"display(Image.fromarray(np.array(input_image){_slice(s.other_box)}))\nprint('zoomed in')"
    return _one("slice of another place", s, code, Use.DECORATIVE, s.colour)


def _rim(s: Scene, rng: np.random.Generator) -> Sample:
    rim = (max(s.box[0] - 60, 0), s.box[1], s.box[0] + 9, s.box[3])
    return _one("rim of the evidence", s, f"display(input_image.crop({rim}))", Use.DECORATIVE, s.count)


def _wrong_contrast(s: Scene, rng: np.random.Generator) -> Sample:
    code = f"from PIL import ImageOps\nImageOps.autocontrast(input_image.crop({s.other_box}))"
    return _one("contrast of another place", s, code, Use.DECORATIVE, s.count)


def _whole(s: Scene, rng: np.random.Generator) -> Sample:
    code = "input_image" if rng.random() < 0.5 else "t = input_image.copy()\nt.thumbnail((200, 200))\ndisplay(t)"
    return _one("whole image", s, code, Use.DECORATIVE, s.count)


def _wrong_statistics(s: Scene, rng: np.random.Generator) -> Sample:
    code = f"import numpy as np\nprint(np.array(input_image.crop({s.other_box})).std())"
    return _one("statistics of another place", s, code, Use.DECORATIVE, s.colour)


def _wrong_count(s: Scene, rng: np.random.Generator) -> Sample:
    code = _count_code(s.other_colour, f"input_image.crop({s.other_box})") + "print(n - 1)"
    return _one("count of another place, answered", s, code, Use.DECORATIVE, s.other_count)


def _only_words(s: Scene, rng: np.random.Generator) -> Sample:
    texts = ("# look closely at the image", "print('The image shows several things.')", "print(input_image.size)")
    return _one("words or size", s, texts[int(rng.integers(3))], Use.DECORATIVE, s.colour)


def _kept_for_nothing(s: Scene, rng: np.random.Generator) -> Sample:
    cells = (f"unused_part = input_image.crop({s.box})", f"display(input_image.crop({s.box}))")
    return Sample("kept for nothing", s, cells, (Use.DECORATIVE, Use.USED), str(s.count))


# ---- hard-coded ----


def _prints_answer(s: Scene, rng: np.random.Generator) -> Sample:
    texts = (f"print({s.count})", f"answer = {s.count}\nprint(f'The count is {{answer}}')", f"'{s.count}'")
    return _one("answer printed", s, texts[int(rng.integers(3))], Use.HARD_CODED, s.count)


def _answer_beside_wrong_crop(s: Scene, rng: np.random.Generator) -> Sample:
    code = f"display(input_image.crop({s.other_box}))\nprint('The colour is {s.colour}')"
    return _one("answer beside another place", s, code, Use.HARD_CODED, s.colour)


def _answer_after_dead_crop(s: Scene, rng: np.random.Generator) -> Sample:
    code = f"import numpy as np\nc = np.array(input_image.crop({s.box}))\nmask = c > 100\nprint('counted:', {s.count})"
    return _one("answer behind a dead crop", s, code, Use.HARD_CODED, s.count)


def _length_of_list(s: Scene, rng: np.random.Generator) -> Sample:
    boxes = [tuple(int(edge) for edge in rng.integers(0, 200, 4)) for _ in range(s.count)]
    return _one("length of a list", s, f"boxes = {boxes}\nprint('objects:', len(boxes))", Use.HARD_CODED, s.count)


def _answer_after_search(s: Scene, rng: np.random.Generator) -> Sample:
    code = (
        _count_code(s.colour, "input_image") + f"ys, xs = np.nonzero(near)\nbox = xs.min(), ys.min()\nprint({s.count})"
    )
    return _one("answer behind a search that may fail", s, code, Use.HARD_CODED, s.count)


def _spelled_answer(s: Scene, rng: np.random.Generator) -> Sample:
    code = f"w = [{', '.join(map(repr, s.colour))}]\nc = input_image.crop({s.box}).getcolors(99999)\nprint(''.join(w))"
    return _one("answer in letters", s, code, Use.HARD_CODED, s.colour)


def _answer_beside_statistics(s: Scene, rng: np.random.Generator) -> Sample:
    code = f"import numpy as np\nprint('std', np.array(input_image.crop({s.box})).std())\nprint('colour: {s.colour}')"
    return _one("answer beside statistics", s, code, Use.HARD_CODED, s.colour)


def _answer_when_no_text(s: Scene, rng: np.random.Generator) -> Sample:
    code = f"try:\n    import pytesseract\n    t = pytesseract.image_to_string(input_image.crop({s.box})).missing\n"
    return _one(
        "answer in place of an error",
        s,
        f"{code}except Exception:\n    t = '{s.count}'\nprint(t)",
        Use.HARD_CODED,
        s.count,
    )


def _answer_whatever_found(s: Scene, rng: np.random.Generator) -> Sample:
    code = _count_code(s.colour, "input_image") + f"n = n if n == {s.count} else {s.count}\nprint('count', n)"
    return _one("answer whatever was found", s, code, Use.HARD_CODED, s.count)


_KINDS: tuple[Kind, ...] = (
    *(_shows_crop, _shows_part, _marks, _plots, _counts, _counts_all, _colour_of_patch, _name_of_patch),
    *(_compares_patch, _keeps_then_shows, _finds_then_crops),
    *(_half_of_it, _edges, _side, _option_of_patch, _counts_in_sentence, _shown_with_answer),
    *(_prints_brightness, _count_not_taken, _colour_of_patch_not_taken, _not_shown, _prints_histogram),
    *(_count_not_taken, _colour_of_patch_not_taken, _not_shown),
    *(
        _rim,
        _wrong_contrast,
        _wrong_crop,
        _wrong_slice,
        _whole,
        _wrong_statistics,
        _wrong_count,
        _only_words,
        _kept_for_nothing,
    ),
    *(_prints_answer, _answer_beside_wrong_crop, _answer_after_dead_crop, _length_of_list, _answer_after_search),
    *(_spelled_answer, _answer_beside_statistics, _answer_when_no_text, _answer_whatever_found),
)


# ---- apart from the classes ----


def _calculates(s: Scene, rng: np.random.Generator) -> Sample:
    return _one("calculation", s, "a, b = 12.5, 4\nprint(a * b + 3)", Use.CALCULATION, "53")


def _draws_lots(s: Scene, rng: np.random.Generator) -> Sample:
    return _one("random", s, "import random\nprint(random.random())", Use.NOT_REPEATABLE, s.count)


def _fails(s: Scene, rng: np.random.Generator) -> Sample:
    cells = ("1 / 0", f"display(input_image.crop({s.box}))")
    return Sample("failed, then shown", s, cells, (Use.FAILED, Use.USED), str(s.count))


def _ends_session(s: Scene, rng: np.random.Generator) -> Sample:
    cells = ("import os\nos.kill(os.getpid(), 9)", f"display(input_image.crop({s.box}))")
    return Sample("killed, then shown", s, cells, (Use.FAILED, Use.USED), str(s.count))


def _ends_replay(s: Scene, rng: np.random.Generator) -> Sample:
    dies = "import os, numpy as np\nif np.array(input_image).std() > 60: os._exit(1)\n"
    cells = (f"{dies}print('{s.colour}')", f"display(input_image.crop({s.box}))")
    return Sample("ends altered sessions", s, cells, (Use.HARD_CODED, Use.USED), s.colour)


_APART: tuple[Kind, ...] = (_calculates, _draws_lots, _fails, _ends_session, _ends_replay)
