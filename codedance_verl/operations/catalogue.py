"""Catalogue of operations: one table from calls to categories, with the kind of value that a call gives.

Names are dotted names after resolution: of a function (`cv2.Canny`), a method of a class (`PIL.Image.Image.crop`), or
a method of what a call returns (`cv2.createCLAHE().apply`). `*` stands for any text. Calls whose category depends on
their arguments are in `arrays.py`, `builtin_calls.py` and `plots.py`; patterns without a call, as slices and
comparisons of pixels, are in `pixels.py`. docs/operations.md has the rules in words.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from enum import Enum, StrEnum, auto
from typing import NamedTuple


class Category(StrEnum):
    """Category of an operation."""

    CROP = "crop"
    RESIZE = "resize"
    ROTATE = "rotate"  # flips and warps too
    COLOUR = "colour"  # contrast and brightness too
    FILTER = "filter"  # noise and sharpness too
    THRESHOLD = "threshold"  # masks and segmentation too
    EDGES = "edges"  # lines, contours, boxes, shapes
    COUNT = "count"  # labels of connected parts too
    DIFFERENCE = "difference"  # templates too
    DRAW = "draw"
    GRID = "grid"  # overlays and montages too
    DISPLAY = "display"  # plots too
    TEXT = "text"  # read from pixels
    STATISTICS = "statistics"  # of pixels
    ARITHMETIC = "arithmetic"  # algebra and geometry too
    TABLES = "tables"  # sums, orders and extremes of collected numbers too
    SEARCH = "search"  # simulation too
    NONE = "none"  # in place of a category, where there is no operation


class Kind(Enum):
    """Kind of a value, as far as it decides on operations."""

    UNKNOWN = auto()
    IMAGE = auto()  # of Pillow
    PIXELS = auto()  # array of pixels
    MASK = auto()  # array of what a threshold left
    LABELS = auto()  # array of numbers of connected parts
    COORDINATES = auto()  # of pixels that a mask marks
    PROFILE = auto()  # numbers along an axis, or pixels in a row
    PIXEL = auto()  # value of one pixel
    SCORES = auto()  # of a template, by place
    SHAPES = auto()  # contours, regions, lines, key points
    SHAPE = auto()  # one of them
    NUMBER = auto()
    STRING = auto()
    LIST = auto()  # tuples and sets too
    DICT = auto()
    SERIES = auto()  # array of plain numbers
    FRAME = auto()  # of pandas
    FIGURE = auto()
    AXES = auto()
    PEN = auto()  # `ImageDraw.Draw`
    ACCESS = auto()  # `Image.load()`
    OBJECT = auto()  # what another call of a library returned


def words(text: str) -> frozenset[str]:
    """Words of a text."""
    return frozenset(text.split())


ARRAYS = frozenset((Kind.PIXELS, Kind.MASK, Kind.LABELS, Kind.SCORES, Kind.PROFILE, Kind.COORDINATES))
"""Kinds of numpy arrays that come of pixels."""

PIXEL_DATA = ARRAYS | {Kind.IMAGE, Kind.PIXEL}

CLASSES: Mapping[Kind, str] = {
    Kind.IMAGE: "PIL.Image.Image",
    **dict.fromkeys(ARRAYS | {Kind.SERIES}, "numpy.ndarray"),
    Kind.FRAME: "pandas.DataFrame",
    Kind.FIGURE: "matplotlib.figure.Figure",
    Kind.AXES: "matplotlib.axes.Axes",
    Kind.PEN: "PIL.ImageDraw.ImageDraw",
    Kind.LIST: "builtins.list",
    Kind.DICT: "builtins.dict",
    Kind.STRING: "builtins.str",
}
"""Class by kind, whose methods are looked up."""


class Entry(NamedTuple):
    """Row of the catalogue.

    Attributes:
        categories: of the call; none for one that only converts.
        result: kind of its value; several for a tuple of them.
    """

    categories: tuple[Category, ...]
    result: tuple[Kind, ...]


_I, _P, _M, _L, _N = Kind.IMAGE, Kind.PIXELS, Kind.MASK, Kind.LABELS, Kind.NUMBER
_U, _O, _S, _F, _T = Kind.UNKNOWN, Kind.OBJECT, Kind.SHAPES, Kind.PROFILE, Kind.STRING

_Row = Mapping[tuple[Kind, ...], str]

TABLE: Mapping[Category, _Row] = {
    Category.CROP: {
        (_I,): "PIL.Image.Image.crop PIL.ImageOps.crop PIL.ImageOps.fit torchvision.transforms.functional.*crop",
        (_P,): "skimage.util.crop tensorflow.image.crop*",
    },
    Category.RESIZE: {
        (_I,): "PIL.Image.Image.resize PIL.Image.Image.thumbnail PIL.Image.Image.reduce PIL.ImageOps.scale "
        "PIL.ImageOps.contain PIL.ImageOps.cover PIL.ImageOps.pad torchvision.transforms.functional.resize",
        (_P,): "cv2.resize cv2.pyrUp cv2.pyrDown skimage.transform.resize skimage.transform.rescale "
        "skimage.transform.pyramid_* skimage.transform.downscale_local_mean scipy.ndimage.zoom "
        "skimage.measure.block_reduce",
    },
    Category.ROTATE: {
        (_I,): "PIL.Image.Image.rotate PIL.Image.Image.transpose PIL.Image.Image.transform PIL.ImageOps.mirror "
        "PIL.ImageOps.flip PIL.ImageOps.exif_transpose PIL.ImageOps.deform PIL.ImageChops.offset",
        (_P,): "cv2.rotate cv2.flip cv2.transpose cv2.warp* cv2.remap skimage.transform.rotate skimage.transform.warp "
        "skimage.transform.swirl scipy.ndimage.rotate scipy.ndimage.shift scipy.ndimage.affine_transform "
        "scipy.ndimage.map_coordinates imutils.rotate*",
    },
    Category.COLOUR: {
        (_I,): "PIL.ImageEnhance.Color().enhance PIL.ImageEnhance.Contrast().enhance "
        "PIL.ImageEnhance.Brightness().enhance PIL.ImageOps.autocontrast PIL.ImageOps.equalize PIL.ImageOps.invert "
        "PIL.ImageOps.grayscale PIL.ImageOps.posterize PIL.ImageOps.solarize PIL.ImageOps.colorize "
        "PIL.Image.Image.quantize PIL.Image.Image.remap_palette PIL.ImageChops.invert",
        (_P,): "cv2.cvtColor cv2.equalizeHist cv2.createCLAHE().apply cv2.LUT cv2.applyColorMap cv2.convertScaleAbs "
        "cv2.normalize cv2.bitwise_not skimage.exposure.equalize* skimage.exposure.adjust* "
        "skimage.exposure.rescale_intensity skimage.exposure.match_histograms skimage.color.* skimage.util.invert "
        "cv2.decolor matplotlib.colors.rgb_to_hsv",
    },
    Category.FILTER: {
        (_I,): "PIL.Image.Image.filter PIL.ImageEnhance.Sharpness().enhance",
        (_P,): "cv2.blur cv2.GaussianBlur cv2.medianBlur cv2.bilateralFilter cv2.boxFilter cv2.filter2D "
        "cv2.sepFilter2D cv2.fastNlMeans* cv2.detailEnhance cv2.edgePreservingFilter cv2.inpaint "
        "scipy.ndimage.*_filter scipy.ndimage.*_filter1d scipy.ndimage.convolve* scipy.ndimage.correlate* "
        "scipy.signal.convolve2d scipy.signal.medfilt* scipy.signal.wiener skimage.filters.gaussian "
        "skimage.filters.median skimage.filters.unsharp_mask skimage.filters.rank.* skimage.restoration.* "
        "numpy.fft.* scipy.fft.* scipy.fftpack.*",
        (_M,): "cv2.morphologyEx cv2.erode cv2.dilate scipy.ndimage.binary_* scipy.ndimage.grey_* "
        "scipy.ndimage.morphological_gradient skimage.morphology.*",
    },
    Category.THRESHOLD: {
        (_N, _M): "cv2.threshold",
        (_N,): "skimage.filters.threshold_*",
        (_M,): "cv2.inRange cv2.adaptiveThreshold cv2.watershed cv2.grabCut cv2.floodFill cv2.bitwise_and "
        "skimage.segmentation.* skimage.filters.apply_hysteresis_threshold skimage.filters.rank.otsu "
        "skimage.filters.threshold_local skimage.filters.threshold_niblack skimage.filters.threshold_sauvola "
        "PIL.ImageDraw.floodfill scipy.ndimage.watershed_ift",
    },
    Category.EDGES: {
        (_P,): "cv2.Canny cv2.Sobel cv2.Scharr cv2.Laplacian cv2.cornerHarris cv2.distanceTransform "
        "skimage.filters.sobel* skimage.filters.prewitt* skimage.filters.scharr* skimage.filters.roberts* "
        "skimage.filters.laplace skimage.feature.* "
        "skimage.morphology.convex_hull* skimage.morphology.*maxim* skimage.morphology.*minim* "
        "scipy.ndimage.sobel scipy.ndimage.prewitt scipy.ndimage.laplace scipy.ndimage.gaussian_laplace "
        "scipy.ndimage.gaussian_gradient_magnitude scipy.ndimage.distance_transform_*",
        (_S, _U): "cv2.findContours cv2.ORB_create().detectAndCompute cv2.SIFT_create().detectAndCompute "
        "cv2.MSER_create().detectRegions scipy.signal.find_peaks",
        (_S,): "cv2.HoughLines cv2.HoughLinesP cv2.HoughCircles cv2.goodFeaturesToTrack "
        "cv2.createLineSegmentDetector().detect cv2.SimpleBlobDetector_create().detect cv2.ORB_create().detect* "
        "cv2.SIFT_create().detect* cv2.CascadeClassifier().detectMultiScale* "
        "cv2.QRCodeDetector().detect* skimage.measure.find_contours skimage.measure.regionprops* "
        "skimage.feature.*().detect* "
        "skimage.feature.peak_local_max skimage.feature.blob_* skimage.feature.corner_peaks "
        "skimage.feature.corner_subpix "
        "skimage.transform.hough_* skimage.transform.probabilistic_hough_line scipy.ndimage.find_objects "
        "scipy.signal.argrelextrema imutils.grab_contours",
        (Kind.SHAPE,): "cv2.approxPolyDP cv2.convexHull cv2.minAreaRect cv2.boxPoints cv2.fitEllipse cv2.fitLine "
        "cv2.minEnclosingCircle cv2.minEnclosingTriangle cv2.boundingRect cv2.moments cv2.HuMoments "
        "cv2.convexityDefects PIL.Image.Image.getbbox scipy.ndimage.center_of_mass skimage.measure.approximate_polygon",
        (_N,): "cv2.contourArea cv2.arcLength cv2.isContourConvex cv2.pointPolygonTest cv2.matchShapes "
        "skimage.measure.perimeter*",
    },
    Category.COUNT: {
        (_L, _N): "scipy.ndimage.label",
        (_L,): "skimage.measure.label",
        (_N, _L): "cv2.connectedComponents",
        (_N, _L, Kind.SERIES, Kind.SERIES): "cv2.connectedComponentsWithStats",
        (_N,): "skimage.measure.euler_number",
    },
    Category.DIFFERENCE: {
        (Kind.SCORES,): "cv2.matchTemplate skimage.feature.match_template scipy.signal.correlate2d",
        (_I,): "PIL.ImageChops.difference PIL.ImageChops.subtract*",
        (_P,): "cv2.absdiff cv2.subtract skimage.util.compare_images",
        (_N,): "skimage.metrics.* cv2.PSNR cv2.compareHist cv2.norm imagehash.*",
    },
    Category.DRAW: {
        (_U,): "skimage.feature.plot_* skimage.feature.draw_* "
        "PIL.ImageDraw.ImageDraw.* PIL.Image.Image.putpixel PIL.Image.Image.putdata cv2.rectangle cv2.circle "
        "cv2.ellipse cv2.line cv2.arrowedLine cv2.polylines cv2.fillPoly cv2.fillConvexPoly cv2.drawContours "
        "cv2.drawMarker cv2.putText cv2.drawKeypoints skimage.draw.set_color numpy.fill_diagonal",
        (_P,): "skimage.segmentation.mark_boundaries skimage.draw.*",
    },
    Category.GRID: {
        (_I,): "PIL.Image.Image.paste PIL.Image.Image.alpha_composite PIL.Image.alpha_composite PIL.Image.blend "
        "PIL.Image.composite PIL.Image.Image.putalpha PIL.ImageOps.expand PIL.ImageChops.add* PIL.ImageChops.multiply "
        "PIL.ImageChops.screen PIL.ImageChops.blend PIL.ImageChops.composite PIL.ImageChops.overlay "
        "PIL.ImageChops.lighter PIL.ImageChops.darker",
        (_P,): "cv2.addWeighted cv2.add cv2.hconcat cv2.vconcat cv2.copyMakeBorder cv2.bitwise_or "
        "skimage.util.montage torchvision.utils.make_grid",
    },
    Category.TEXT: {
        (_T,): "pytesseract.* tesserocr.*",
        (Kind.LIST,): "easyocr.Reader().readtext* paddleocr.PaddleOCR().* keras_ocr.*",
    },
    Category.STATISTICS: {
        (_F,): "PIL.Image.Image.histogram PIL.Image.Image.getextrema PIL.Image.Image.getprojection cv2.calcHist "
        "skimage.exposure.histogram skimage.measure.profile_line cv2.reduce cv2.meanStdDev "
        "skimage.exposure.cumulative_distribution cv2.kmeans sklearn.cluster.*().fit* scipy.cluster.vq.kmeans*",
        (Kind.LIST,): "PIL.Image.Image.getcolors",
        (_N,): "PIL.Image.Image.entropy cv2.countNonZero cv2.mean skimage.measure.shannon_entropy",
        (_O,): "PIL.ImageStat.Stat",
        (_N, _N, _U, _U): "cv2.minMaxLoc",
    },
    Category.ARITHMETIC: {
        (_N,): "math.* cmath.* sympy.* fractions.* decimal.* statistics.* numpy.linalg.* numpy.poly* numpy.roots "
        "scipy.stats.* scipy.linalg.* scipy.special.* scipy.integrate.* scipy.interpolate.* scipy.spatial.* "
        "shapely.* mpmath.* builtins.pow builtins.divmod scipy.constants.*",
    },
    Category.TABLES: {
        (Kind.FRAME,): "pandas.* polars.* csv.*",
    },
    Category.SEARCH: {
        (Kind.LIST,): "itertools.product itertools.permutations itertools.combinations* itertools.cycle "
        "itertools.accumulate networkx.*",
        (_U,): "heapq.* bisect.* collections.deque().popleft collections.deque().pop queue.*().get scipy.optimize.* "
        "networkx.*",
        (_N,): "random.* numpy.random.* secrets.*",
    },
}
"""Calls by category, and by the kind of what they give."""

CONVERSIONS: _Row = {
    (_I,): "PIL.Image.open PIL.Image.fromarray PIL.Image.new PIL.Image.merge PIL.Image.Image.copy PIL.ImageGrab.* "
    "IPython.display.Image torchvision.transforms.functional.to_pil_image",
    (_P,): "skimage.util.img_as_* skimage.img_as_* "
    "cv2.imread cv2.imdecode cv2.merge skimage.io.imread matplotlib.pyplot.imread imageio.* "
    "matplotlib.image.imread torchvision.transforms.functional.to_tensor skimage.data.*",
    (Kind.PEN,): "PIL.ImageDraw.Draw",
    (Kind.ACCESS,): "PIL.Image.Image.load",
    (_F,): "PIL.Image.Image.getdata PIL.Image.Image.get_flattened_data",
    (_T,): "builtins.str builtins.repr builtins.format builtins.chr builtins.input json.dumps os.path.* builtins.ascii "
    "builtins.hex builtins.bin",
    (_N,): "builtins.ord builtins.hash builtins.id time.* cv2.getTickCount",
    (_O,): "PIL.ImageColor.* PIL.ImageFont.* PIL.ImageFilter.* PIL.ImageEnhance.* cv2.getStructuringElement "
    "cv2.getRotationMatrix2D cv2.getPerspectiveTransform cv2.getAffineTransform skimage.morphology.disk "
    "skimage.morphology.square skimage.morphology.rectangle skimage.morphology.ball skimage.morphology.diamond "
    "skimage.morphology.octa* skimage.morphology.star skimage.morphology.footprint_* "
    "sympy.symbols sympy.Symbol sympy.Symbol().* skimage.feature.CENSURE skimage.feature.ORB skimage.feature.SIFT "
    "skimage.feature.BRIEF pandas.set_option random.seed "
    "numpy.random.seed skimage.segmentation.clear_border numpy.random.default_rng math.isclose "
    "skimage.transform.AffineTransform skimage.transform.*Transform numpy.polynomial.* matplotlib.colors.*",
}
"""Calls that are no operation, by the kind of what they give; they come before the table."""


@functools.lru_cache(maxsize=4096)
def look_up(name: str) -> Entry | None:
    """Returns the row of a dotted name, an exact one before a pattern; None for a call that is not in the catalogue."""
    exact, patterns = _compiled()
    if name in exact:
        return exact[name]
    return next((entry for pattern, entry in patterns if pattern.fullmatch(name)), None)


@functools.cache
def _compiled() -> tuple[Mapping[str, Entry], tuple[tuple[re.Pattern[str], Entry], ...]]:
    rows = [((), CONVERSIONS), *(((category,), row) for category, row in TABLE.items())]
    entries = [
        (name, Entry(categories, result))
        for categories, row in rows
        for result, names in row.items()
        for name in names.split()
    ]
    exact = {name: entry for name, entry in reversed(entries) if "*" not in name}
    patterns = [(name, entry) for name, entry in entries if "*" in name]
    # The longest pattern says most: `skimage.filters.sobel*` comes before `skimage.*`.
    patterns.sort(key=lambda item: -len(item[0]))
    return exact, tuple((re.compile(re.escape(name).replace(r"\*", ".*")), entry) for name, entry in patterns)
