"""Writes what `fl.explore("mnist")` shows: `python -m fidlib.explorer.published mnist`.

Of models that come with the repository or were made before.
"""

import sys

import pandas as pd

from fidlib.explorer import explore
from fidlib.runs import store
from fidlib.study.config import Config
from fidlib.study.study import Study

_PRUNED = [
    f"{m}/prune:{s}" for m in ("FTAL", "FixLL+PFL") for s in (0.2, 0.4, 0.6, 0.8)
]
_TUNED = ["FTAL/fine-tune", "FixLL+PFL/fine-tune", "retrained", "fine-tuned"]
_METHODS = ["FTAL", "FTLL", "FTAL+TWL", "FixLL", "FixLL+PFL", "FixLL+SPL", "scratch"]

STUDIES = {
    "mnist": (Config(dataset="mnist", scale="hours"), None),
    "cifar10": (Config(dataset="cifar10", feature_dim=64, scale="hours"), None),
    "digits": (Config(dataset="digits"), [*_METHODS, *_PRUNED, *_TUNED]),
}
"""Suite -> configuration, and models by lineage; None for all that are there."""

PLANES = 6
"""In pixel space, kept for all models."""


def main(names: list[str]) -> None:
    """Write `figures/<suite>/explorer.html`, with notebook 06's sweep."""
    for name in names:
        config, models = STUDIES[name]
        folder = store.shelf("figures") / name
        sweep = pd.read_csv(folder / "06_tradeoffs-models.csv", index_col=0)
        tables = {"sweep of notebook 06 (convnet, D = 16)": sweep}
        shown = explore(Study(config), models, tables=tables)
        path = shown.page(folder / "explorer.html", planes=PLANES)
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(sys.argv[1:] or [*STUDIES])
