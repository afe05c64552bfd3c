"""What all pictures have in common: sizes, letters and lines."""

import matplotlib as mpl

SINGLE = 3.3
"""Width of a single-column figure, inches."""
DOUBLE = 6.9
"""Width of a double-column figure, inches."""


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
