"""Names of fonts that are not there, and the files that stand for them."""

from __future__ import annotations

import pytest
from PIL import ImageFont

from sandbox_image.codedance_interpreter import fonts


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("Arial", "Arimo"),
        ("helvetica", "Arimo"),
        ("Times New Roman", "STIXGeneral"),
        ("SimHei", "Noto Sans CJK TC"),
        ("Microsoft YaHei", "Noto Sans CJK TC"),
        ("Courier New", "DejaVu Sans Mono"),
        ("DejaVu Sans", "DejaVu Sans"),
        ("My Own Font", "My Own Font"),
    ],
)
def test_a_family_stands_for_those_that_are_not_there(name: str, family: str) -> None:
    assert fonts.family(name) == family


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("times.ttf", "STIXGeneral.ttf"),
        ("timesbd.ttf", "STIXGeneralBol.ttf"),
        ("timesbi.ttf", "STIXGeneralBolIta.ttf"),
        ("C:\\Windows\\Fonts\\courbd.ttf", "DejaVuSansMono-Bold.ttf"),
        ("/usr/share/fonts/truetype/dejavu/DejaVuSerif-Bold.ttf", "DejaVuSerif-Bold.ttf"),
        ("Verdana-Italic.ttf", "DejaVuSans-Oblique.ttf"),
        ("STIXGeneralItalic.ttf", "STIXGeneralItalic.ttf"),
    ],
)
def test_a_file_stands_for_those_that_are_not_there(name: str, file: str) -> None:
    found = fonts.file(name)
    assert found is not None and found.endswith("/" + file)
    assert ImageFont.truetype(found, 12).size == 12


@pytest.mark.parametrize("name", ["nosuchfont.ttf", "", ".ttf", "bold.ttf", "iiiiii", "../../etc/passwd"])
def test_a_name_of_which_nothing_is_known_stands_for_nothing(name: str) -> None:
    assert fonts.file(name) is None


def test_text_that_any_font_can_draw_needs_no_other() -> None:
    path = fonts.file("DejaVuSans.ttf")
    assert path is not None
    font = ImageFont.truetype(path, 12)
    assert fonts._font_for("abc é", font) is font
