"""Fonts of the sandbox image, made of the packages of `requirements-fonts.txt`: one file a face, at the usual paths.

Usage: make_fonts.py PACKAGES TARGET. `TARGET` becomes `/usr/share/fonts`: the files lie in `codedance/`, and links bear
the names and paths under which code expects DejaVu, Liberation and Noto on Linux. The same packages give the same
bytes.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from fontTools.ttLib import TTFont  # type: ignore[import-untyped]
from fontTools.varLib import instancer  # type: ignore[import-untyped]

COPIES = {
    "NotoSansCJK-Regular.otf": "cvttf_NotoSansCJK_Regular/NotoSansCJKtc-Regular.otf",
    "NotoSansBengali-Regular.ttf": "fontpkg_hind_siliguri/files/HindSiliguri-Regular.ttf",
}
"""Files of the image, each with its file of the packages."""

INSTANCES = {
    "Arimo-Regular.ttf": ("fontpkg_arimo", "Arimo[wght].ttf", 400),
    "Arimo-Bold.ttf": ("fontpkg_arimo", "Arimo[wght].ttf", 700),
    "Arimo-Italic.ttf": ("fontpkg_arimo", "Arimo-Italic[wght].ttf", 400),
    "Arimo-BoldItalic.ttf": ("fontpkg_arimo", "Arimo-Italic[wght].ttf", 700),
    "NotoSansDevanagari-Regular.ttf": ("fontpkg_noto_sans_devanagari", "NotoSansDevanagari[wdth,wght].ttf", 400),
    "NotoSansTamil-Regular.ttf": ("fontpkg_noto_sans_tamil", "NotoSansTamil[wdth,wght].ttf", 400),
    "NotoSansTelugu-Regular.ttf": ("fontpkg_noto_sans_telugu", "NotoSansTelugu[wdth,wght].ttf", 400),
    "NotoSansThai-Regular.ttf": ("fontpkg_noto_sans_thai", "NotoSansThai[wdth,wght].ttf", 400),
}
"""Files of the image, each with its package, the variable font there, and the weight of the face made of it."""

STYLES = ("Regular", "Bold", "Italic", "BoldItalic")
MATPLOTLIB = "/opt/codedance/libraries/matplotlib/mpl-data/fonts/ttf"


def main(packages: Path, target: Path) -> None:
    files = target / "codedance"
    files.mkdir(parents=True)
    for name, source in COPIES.items():
        shutil.copyfile(packages / source, files / name)
    for name, (package, source, weight) in INSTANCES.items():
        _instance(packages / package / "files" / source, files / name, weight)
    for style in STYLES:
        for folder in ("liberation", "liberation2"):
            _link(target / "truetype" / folder / f"LiberationSans-{style}.ttf", f"../../codedance/Arimo-{style}.ttf")
    for name in ("Sans", "Sans-Bold", "Sans-Oblique", "SansMono", "SansMono-Bold", "Serif", "Serif-Bold"):
        _link(target / "truetype" / "dejavu" / f"DejaVu{name}.ttf", f"{MATPLOTLIB}/DejaVu{name}.ttf")
    for name in ("opentype/noto/NotoSansCJK-Regular", "truetype/wqy/wqy-zenhei", "truetype/wqy/wqy-microhei"):
        _link(target / f"{name}.ttc", "../../codedance/NotoSansCJK-Regular.otf")


def _instance(source: Path, target: Path, weight: int) -> None:
    """Makes one face of a variable font; axes other than the weight stay at their defaults."""
    font = TTFont(source, recalcTimestamp=False)  # the same packages must give the same bytes
    axes = {axis.axisTag: weight if axis.axisTag == "wght" else axis.defaultValue for axis in font["fvar"].axes}
    instancer.instantiateVariableFont(font, axes, inplace=True, updateFontNames=True)
    font.save(target)


def _link(path: Path, target: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
