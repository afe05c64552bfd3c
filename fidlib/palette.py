"""Colours and markers of classes and methods: one table for pictures and explorer."""

import colorsys
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
    many = (colorsys.hls_to_rgb(k * golden % 1, 0.55, 0.6) for k in range(count))
    return ["#" + "".join(f"{round(255 * v):02x}" for v in color) for color in many]


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
