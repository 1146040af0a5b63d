"""Analysis of damaged programs: never an error, whatever of a program is left."""

from __future__ import annotations

import random

from benchmarks.operations import DATA, read_part
from codedance_verl.operations.analysis import analyse
from codedance_verl.operations.catalogue import Category


def test_programs_with_lines_taken_out_or_shuffled() -> None:
    generator = random.Random(0)
    programs = [item.cells for part in ("development", "fresh") for item in read_part(DATA / part)]
    for cells in programs:
        lines = "\n".join(cells).split("\n")
        others = "\n".join(generator.choice(programs)).split("\n")
        for _ in range(2):
            kept = [line for line in lines + others if generator.random() < 0.7]
            if generator.random() < 0.3:
                generator.shuffle(kept)
            found = analyse(["\n".join(kept)])
            assert len(found.cells) == 1


def test_programs_with_names_exchanged() -> None:
    generator = random.Random(1)
    names = ["input_image", "np", "cv2", "a", "crop", "print", "len", "label", "max", "x", "None", "0"]
    for item in read_part(DATA / "development"):
        code = "\n".join(item.cells)
        for _ in range(2):
            code = code.replace(generator.choice(names), generator.choice(names))
            assert analyse([code]).categories <= set(Category)
