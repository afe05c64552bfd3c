"""What all pictures have in common: sizes, letters, colours, lines and markers."""

from typing import Any

import matplotlib as mpl

SINGLE = 3.3
"""Width of a single-column figure, inches."""
DOUBLE = 6.9
"""Width of a double-column figure, inches."""

# Colours and lines, as plain data. The ten of classes are matplotlib's petroff10.
CLASSES = (
    *("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6"),
    *("#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd"),
)
SERIES = ("#0072b2", "#e69f00", "#d55e00", "#009e73")
OTHERS = ("#cc79a7", "#56b4e9", "#8c564b", "#b8b000")
_FAMILIES = {
    **{"host": "0.45", "scratch": "0.25", "FTLL": "#e69f00", "FTAL": "#d55e00"},
    **{"retrained": "0.6", "fine-tuned": "0.75"},
}
_FIXED, _FIXED_FROM_SCRATCH, _QUIET = "#0072b2", "#009e73", "#cc3d8f"
_TERMS = {
    **{"TWL": ("--", "s"), "PGR": (":", "D"), "PFL": ("-.", "^")},
    **{"SPL": ((0, (1, 1)), "v")},
}


def use_style() -> None:
    """House style: 8 pt text, thin axes without top and right spine, 200 dpi."""
    import seaborn as sns

    sns.set_theme(context="paper", style="ticks")
    mpl.rc("font", size=8)
    mpl.rc("axes", titlesize=8, labelsize=8, linewidth=0.6)
    mpl.rc("axes.spines", top=False, right=False)
    for name in ("xtick", "ytick"):
        mpl.rc(name, labelsize=7)
    for name in ("xtick.major", "ytick.major"):
        mpl.rc(name, width=0.6, size=2.5, pad=2)
    mpl.rc("legend", fontsize=7, frameon=False)
    mpl.rc("lines", linewidth=1.2)
    mpl.rc("figure", dpi=110)
    mpl.rc("figure.constrained_layout", use=True)
    mpl.rc("savefig", dpi=200)


def class_colors(count: int) -> list[str]:
    """`count` colours, colour-blind safe up to ten; neighbours are far apart in hue."""
    if count <= len(CLASSES):
        return list(CLASSES[:count])
    import seaborn as sns

    hues = ((5**0.5 - 1) / 2 * k % 1 for k in range(count))  # the golden section
    return [sns.husl_palette(1, h=hue, s=0.8).as_hex()[0] for hue in hues]


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
