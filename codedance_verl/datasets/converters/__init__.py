"""Converters of published sets by name."""

from __future__ import annotations

from collections.abc import Mapping

from codedance_verl.datasets.converter import Converter
from codedance_verl.datasets.converters.answers import MULBERRY, THYME
from codedance_verl.datasets.converters.charts import CHARTGEMMA, CHARTQAPRO, REFOCUS
from codedance_verl.datasets.converters.code_traces import RETOOL
from codedance_verl.datasets.converters.codedance import CODEDANCE_RL, CODEDANCE_SFT
from codedance_verl.datasets.converters.counting import PIXMOCOUNT
from codedance_verl.datasets.converters.deepeyes import DEEPEYES
from codedance_verl.datasets.converters.maths import GEOQA, MMK12, THINKLITE

CONVERTERS: Mapping[str, Converter] = {
    converter.name: converter
    for converter in (
        CODEDANCE_RL,
        CODEDANCE_SFT,
        DEEPEYES,
        REFOCUS,
        PIXMOCOUNT,
        THINKLITE,
        MMK12,
        GEOQA,
        CHARTQAPRO,
        CHARTGEMMA,
        RETOOL,
        THYME,
        MULBERRY,
    )
}
