"""Fonts by the names that models use, and glyphs for the scripts that those fonts lack.

A missing font is replaced by one of the same metrics (Arial by Arimo, Times by STIX) or of the same kind.
What the chosen font cannot draw comes from the fonts of `FOLDER`: in matplotlib glyph by glyph, in PIL, which draws a
text with one font, with the first that has all of it. Where `FOLDER` is missing (no sandbox image) names still resolve
to the fonts that come with matplotlib.
"""

from __future__ import annotations

import io
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

FOLDER = Path("/usr/share/fonts/codedance")
SCRIPTS = (
    *("CJK-Regular.otf", "Devanagari-Regular.ttf", "Bengali-Regular.ttf", "Tamil-Regular.ttf", "Telugu-Regular.ttf"),
    "Thai-Regular.ttf",
)

_FIRST_OTHER_SCRIPT = 0x0900
_DEJAVU = ("DejaVu{}.ttf", "DejaVu{}-Bold.ttf", "DejaVu{}-Oblique.ttf", "DejaVu{}-BoldOblique.ttf")
_FACES = {
    "Arimo": tuple(f"Arimo-{style}.ttf" for style in ("Regular", "Bold", "Italic", "BoldItalic")),
    "STIXGeneral": ("STIXGeneral.ttf", "STIXGeneralBol.ttf", "STIXGeneralItalic.ttf", "STIXGeneralBolIta.ttf"),
    "DejaVu Sans": tuple(name.format("Sans") for name in _DEJAVU),
    "DejaVu Sans Mono": tuple(name.format("SansMono") for name in _DEJAVU),
    "DejaVu Serif": ("DejaVuSerif.ttf", "DejaVuSerif-Bold.ttf", "DejaVuSerif-Italic.ttf", "DejaVuSerif-BoldItalic.ttf"),
    "Noto Sans CJK TC": ("NotoSansCJK-Regular.otf",) * 4,
    "Noto Sans Devanagari": ("NotoSansDevanagari-Regular.ttf",) * 4,
}
"""Files of each family: plain, bold, italic and both."""

_STANDS_FOR = {
    "Arimo": """
        Arial, Helvetica, Helvetica Neue, Liberation Sans, FreeSans, Nimbus Sans, Arial Black, Arial Narrow,
        Calibri, Carlito, Segoe UI, Roboto, Open Sans, Noto Sans, Lato, Ubuntu, Inter, Source Sans Pro,
        Montserrat, Impact, SF Pro, Comic Sans MS, comic, Trebuchet MS, trebuc, Candara, Corbel, Franklin Gothic
        Medium, Century Gothic, Futura, Myriad Pro, Arial MT, Droid Sans, Fira Sans, Poppins, Sans""",
    "DejaVu Sans": """
        Verdana, Tahoma, Bitstream Vera Sans, Vera, Geneva, Lucida Grande, Lucida Sans Unicode, l_10646, Noto
        Sans Arabic, Noto Naskh Arabic, Noto Kufi Arabic, Amiri, Noto Sans Hebrew, Symbola, Segoe UI Symbol,
        seguisym""",
    "STIXGeneral": """
        Times New Roman, Times, Times Roman, Liberation Serif, Tinos, FreeSerif, Nimbus Roman, Georgia, Cambria,
        Cambria Math, Garamond, Palatino, Palatino Linotype, Book Antiqua, Noto Serif, Computer Modern Roman,
        Baskerville, Century Schoolbook, Bookman, Charter, Serif""",
    "DejaVu Sans Mono": """
        Courier New, Courier, cour, Liberation Mono, Cousine, FreeMono, Nimbus Mono, Consolas, consola, Menlo,
        Monaco, Lucida Console, Roboto Mono, Noto Sans Mono, Noto Mono, Source Code Pro, Fira Code, Fira Mono,
        Ubuntu Mono, Inconsolata, Andale Mono, SF Mono, JetBrains Mono, Monospace""",
    "Noto Sans CJK TC": """
        SimHei, SimSun, NSimSun, Microsoft YaHei, Microsoft YaHei UI, msyh, Microsoft JhengHei, msjh, KaiTi,
        simkai, FangSong, simfang, DengXian, deng, STHeiti, STHeiti Light, STHeiti Medium, STSong, STKaiti,
        STFangsong, STXihei, Heiti SC, Heiti TC, PingFang SC, PingFang TC, PingFang HK, PingFang, Hiragino Sans
        GB, Songti SC, Songti, MingLiU, PMingLiU, Noto Sans CJK SC, Noto Sans CJK JP, Noto Sans CJK KR, Noto
        Sans CJK HK, Noto Sans CJK, Noto Serif CJK SC, Noto Serif CJK TC, Noto Serif CJK JP, Noto Serif CJK KR,
        Noto Serif CJK, Noto Sans SC, Noto Sans TC, Noto Sans JP, Noto Sans KR, Noto Sans HK, Noto Serif SC,
        Noto Serif JP, Noto Serif KR, Source Han Sans, Source Han Sans SC, Source Han Sans CN, Source Han Sans
        TC, Source Han Sans JP, Source Han Serif SC, Source Han Serif CN, WenQuanYi Zen Hei, WenQuanYi Micro
        Hei, wqy zenhei, wqy microhei, AR PL UMing CN, AR PL UKai CN, uming, ukai, Droid Sans Fallback, Droid
        Sans Fallback Full, Arial Unicode MS, Arial Unicode, arialuni, MS Gothic, MS PGothic, msgothic, MS
        Mincho, msmincho, Yu Gothic, YuGothM, YuGothB, YuGothR, Yu Mincho, Meiryo, Hiragino Sans, Hiragino Kaku
        Gothic Pro, Hiragino Maru Gothic Pro, Osaka, IPAexGothic, IPAGothic, ipaexg, ipag, ipam, IPAMincho,
        TakaoGothic, TakaoPGothic, VL Gothic, Malgun Gothic, malgun, NanumGothic, Nanum Gothic,
        NanumBarunGothic, NanumMyeongjo, NanumSquare, AppleGothic, Apple SD Gothic Neo, Gulim, Dotum, Batang,
        UnDotum, Baekmuk Gulim, OPPOSans, HarmonyOS Sans SC, Alibaba PuHuiTi""",
    "Noto Sans Devanagari": "Mangal, Nirmala UI, nirmala, Lohit Devanagari, Kokila, Aparajita, Noto Serif Devanagari",
}
_SUFFIXES = (
    *(("bolditalic", 3), ("boldoblique", 3), ("bolitalic", 3), ("bdit", 3), ("bi", 3), ("z", 3)),
    *(("semibold", 1), ("demibold", 1), ("bold", 1), ("black", 1), ("heavy", 1), ("bd", 1), ("b", 1)),
    *(("italic", 2), ("oblique", 2), ("it", 2), ("i", 2)),
    *(("regular", 0), ("medium", 0), ("light", 0), ("thin", 0), ("roman", 0), ("book", 0), ("psmt", 0), ("mt", 0)),
    *(("ps", 0), ("l", 0), ("r", 0), ("m", 0), ("vf", 0), ("variablefontwght", 0), ("variable", 0), ("2", 0)),
)
"""Endings of a font's file name, each with the style it means (an index into a value of `_FACES`)."""


def _key(name: str) -> str:
    return re.sub(r"[\W_]", "", name.lower())


_FAMILIES = {_key(name): family for family, names in _STANDS_FOR.items() for name in (family, *names.split(","))}


_STEMS = {_key(Path(file).stem): file for files in _FACES.values() for file in files}


def family(name: str) -> str:
    """Returns the family that stands for `name`; `name` itself if there is none."""
    return _FAMILIES.get(_key(name), name)


def file(name: str) -> str | None:
    """Returns the file that stands for a font's file name or path, such as `arialbd.ttf`; None where nothing does."""
    # Paths of Windows, too.
    stem = re.split(r"[/\\]", name)[-1]
    key, style = _key(re.sub(r"\.(?:ttf|otf|ttc|pfb|dfont|woff2?)$", "", stem, flags=re.IGNORECASE)), 0
    for _round in range(3):  # each takes one ending off: names have up to two
        if key in _STEMS and (path := _path(_STEMS[key])):
            return path
        if key in _FAMILIES:
            return _path(_FACES[_FAMILIES[key]][style]) or _path(_FACES["DejaVu Sans"][style])
        suffix, meant = next(((end, meant) for end, meant in _SUFFIXES if key.endswith(end)), ("", 0))
        if not suffix:
            return None
        key, style = key.removesuffix(suffix), style or meant
    return None


@lru_cache(256)
def _path(name: str) -> str | None:
    import matplotlib as mpl

    for folder in (FOLDER, Path(mpl.get_data_path()) / "fonts" / "ttf"):
        if (folder / name).is_file():
            return str(folder / name)
    return None


@lru_cache(1)
def fallbacks() -> tuple[str, ...]:
    """Returns the files to search, in this order, for a glyph that the chosen font lacks."""
    names = ("DejaVuSans.ttf", *(f"NotoSans{script}" for script in SCRIPTS))
    return tuple(path for path in map(_path, names) if path is not None)


def install() -> None:
    """Gives matplotlib and PIL the names and glyphs of this module. Call once, when they are imported."""
    _install_in_matplotlib()
    _install_in_pil()


def _install_in_matplotlib() -> None:
    """Resolves names where families are looked up, and adds `fallbacks` to every list of fonts.

    Works on methods of the font manager that are no public interface: those of matplotlib 3.8 to 3.11.
    """
    from matplotlib import font_manager

    manager: Any = font_manager.FontManager
    properties: Any = font_manager.FontProperties

    find, find_all, expand = manager.findfont, manager._find_fonts_by_props, manager._expand_aliases
    path_type: Any = getattr(font_manager, "FontPath", None)  # since 3.11

    def findfont(self: Any, prop: Any, *args: Any, **kwargs: Any) -> Any:
        prop = properties._from_any(prop)
        path = prop.get_file()
        if path is not None and not Path(path).exists() and (found := file(str(path))):
            return path_type(found, 0) if path_type else found
        families = prop.get_family()
        resolved = [family(name) for name in families]
        if resolved != families:
            prop = prop.copy()  # it may be shared by other texts of the figure
            prop.set_family(resolved)
        return find(self, prop, *args, **kwargs)

    def find_fonts_by_props(self: Any, prop: Any, fontext: str = "ttf", *args: Any, **kwargs: Any) -> Any:
        paths = list(find_all(self, prop, fontext, *args, **kwargs))
        # PDF and PostScript fonts (AFM) have no fallbacks here.
        if fontext != "ttf":
            return paths
        more = [path for path in fallbacks() if path not in map(str, paths)]
        return paths + [path_type(path, 0) if path_type else path for path in more]

    def expand_aliases(name: str) -> list[str]:
        return [family(each) for each in expand(name)]

    manager.findfont = findfont
    manager._find_fonts_by_props = find_fonts_by_props
    manager._expand_aliases = staticmethod(expand_aliases)
    # The module's function is a bound method, taken when it was imported.
    font_manager.findfont = font_manager.fontManager.findfont
    _install_in_mathtext()


def _install_in_mathtext() -> None:
    """Adds other scripts beside formulas: mathtext, which draws a text with a formula, has one font only."""
    from matplotlib._mathtext import UnicodeFonts
    from matplotlib.font_manager import get_font

    get_glyph = UnicodeFonts._get_glyph

    def with_fallbacks(self: Any, fontname: Any, font_class: Any, sym: str, *args: Any) -> Any:
        if len(sym) == 1 and ord(sym) >= _FIRST_OTHER_SCRIPT:
            for path in fallbacks():
                font = get_font(path)
                # 0 is the glyph of characters that a font lacks.
                if font.get_char_index(ord(sym)):
                    return font, ord(sym), False
        return get_glyph(self, fontname, font_class, sym, *args)

    UnicodeFonts._get_glyph = with_fallbacks  # type: ignore[method-assign]


def _install_in_pil() -> None:
    from PIL import ImageFont

    truetype, free_type = ImageFont.truetype, ImageFont.FreeTypeFont

    def open_font(font: Any = None, size: float = 10, *args: Any, **kwargs: Any) -> Any:
        try:
            return truetype(font, size, *args, **kwargs)
        except OSError:
            found = file(str(font)) if isinstance(font, (str, Path)) else None
            if found is None:
                raise OSError(f"cannot open resource: no font {str(font)!r} here; there are {_SOME}") from None
            return truetype(found, size)

    ImageFont.truetype = open_font
    for name in ("getmask2", "getmask", "getbbox", "getlength"):
        setattr(free_type, name, _with_glyphs(getattr(free_type, name)))


_SOME = "DejaVuSans.ttf, arial.ttf, times.ttf, cour.ttf, simhei.ttf and their like"


def _with_glyphs(method: Any) -> Any:
    """Wraps a method of a PIL font: it is called on another font of the same size where this one lacks glyphs."""

    def call(self: Any, text: Any, *args: Any, **kwargs: Any) -> Any:
        # Every font has ASCII: most texts cost nothing.
        if isinstance(text, str) and not text.isascii():
            self = _font_for(text, self)
        return method(self, text, *args, **kwargs)

    return call


def _font_for(text: str, font: Any) -> Any:
    """Returns `font`, or the fallback that has the most characters of `text` where `font` lacks some."""
    from PIL import ImageFont

    wanted = {ord(character) for character in text if not character.isspace()}
    best, fewest = font, len(wanted - _characters(_source(font)))
    for path in fallbacks() if fewest else ():
        missing = len(wanted - _characters(path))
        # Strictly: at a tie the chosen font stays.
        if missing < fewest:
            best, fewest = path, missing
    return best if best is font else _opened(best, font.size, ImageFont.FreeTypeFont)


@lru_cache(64)
def _opened(path: str, size: float, kind: Any) -> Any:
    return kind(path, size)


@lru_cache(32)
def _characters(source: str | bytes) -> frozenset[int]:
    """Returns the code points that a font, a file or its content, has glyphs for; all where it cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(io.BytesIO(source) if isinstance(source, bytes) else source).get_charmap())
    except Exception:  # a font that FreeType opens for PIL only
        return frozenset(range(0x110000))


def _source(font: Any) -> str | bytes:
    """Returns the file of a PIL font, or its content where it has none: PIL's own font is one of those."""
    path: str | bytes | None = getattr(font, "font_bytes", None)  # of a file that was given open
    return path if path is not None else os.fsdecode(font.path)
