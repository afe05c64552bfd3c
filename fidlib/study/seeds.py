"""One configuration under several seeds."""

import dataclasses
from collections.abc import Iterable

import pandas as pd

from fidlib.study.config import Config
from fidlib.study.lineage import Name, several
from fidlib.study.study import Study


def over_seeds(
    config: Config, models: Iterable[Name], seeds: Iterable[int]
) -> pd.DataFrame:
    """Tables of several seeds, below one another: each its host, triggers and order.

    Args:
        config: All but the seed.
        models: Rows, after the host's.
        seeds: At least two, for a spread.

    Returns:
        As `Study.table`, indexed by method and seed, a seed's rows together.

    Raises:
        ValueError: If there are fewer than two seeds.
    """
    seeds, models = list(dict.fromkeys(seeds)), several(models)
    if len(seeds) < 2:
        raise ValueError(f"seeds are {seeds}; a spread needs at least two.")
    rows = []
    for seed in seeds:
        table = Study(dataclasses.replace(config, seed=seed)).table(models)
        rows.append(table.assign(seed=seed).set_index("seed", append=True))
    return pd.concat(rows)
