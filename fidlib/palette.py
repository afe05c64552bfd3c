"""Colours and markers of classes and methods: one table for pictures and explorer."""

import math
from typing import Any

CLASSES = (
    *("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6"),
    *("#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd"),
)
"""Petroff 2021, for people with any colour vision: as matplotlib's `petroff10`."""

VIRIDIS = (
    *("#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c"),
    *("#28ae80", "#5ec962", "#addc30", "#fde725"),
)
"""From little to much, at equal steps."""

SERIES = ("#0072b2", "#e69f00", "#d55e00", "#009e73")
OTHERS = ("#cc79a7", "#56b4e9", "#8c564b", "#b8b000")

_FAMILIES = {
    **{"host": "#737373", "scratch": "#404040", "FTLL": "#e69f00", "FTAL": "#d55e00"},
    **{"retrained": "#999999", "fine-tuned": "#bfbfbf"},
}
_FIXED, _FIXED_FROM_SCRATCH, _QUIET = "#0072b2", "#009e73", "#cc3d8f"
_TERMS = {
    "TWL": ("--", "s"),
    "PGR": (":", "D"),
    "PFL": ("-.", "^"),
    "SPL": ((0, (1, 1)), "v"),
}


def class_colors(count: int) -> list[str]:
    """`count` colours, colour-blind safe up to ten; neighbours are far apart in hue."""
    if count <= len(CLASSES):
        return list(CLASSES[:count])
    golden = (5**0.5 - 1) / 2
    return [_oklch(0.68, 0.16, k * golden % 1) for k in range(count)]


def method_style(name: str) -> dict[str, Any]:
    """Colour, line and marker of a method: colour says what is trained from where,
    line and marker what is preserved. Names unknown to the paper get a colour too.
    """
    parts = name.split("+")
    if "quiet" in parts:
        color = _QUIET
    elif "FixLL" in parts:
        color = _FIXED_FROM_SCRATCH if parts[0] == "scratch" else _FIXED
    else:
        other = OTHERS[sum(name.encode()) % len(OTHERS)]
        color = _FAMILIES.get(parts[0], other)
    looks = [_TERMS[part] for part in parts if part in _TERMS] or [("-", "o")]
    line, marker = looks[0] if len(looks) == 1 else ("-", "P")
    return {"color": color, "linestyle": line, "marker": marker}


def _oklch(light: float, chroma: float, hue: float) -> str:
    """A colour of Ottosson's OKLCH, hue in turns, cut to what a screen can show."""
    a, b = (chroma * f(2 * math.pi * hue) for f in (math.cos, math.sin))
    long = (light + 0.3963377774 * a + 0.2158037573 * b) ** 3
    middle = (light - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (light - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * middle + 1.7076147010 * short,
    )
    cut = [min(1.0, max(0.0, value)) for value in linear]
    curved = [
        12.92 * v if v <= 0.0031308 else 1.055 * v ** (1 / 2.4) - 0.055 for v in cut
    ]
    return "#" + "".join(f"{round(255 * value):02x}" for value in curved)
