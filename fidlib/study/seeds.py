"""One configuration under several seeds, each with a host of its own."""

import dataclasses
from collections.abc import Iterable

import pandas as pd

from fidlib.measures import halves
from fidlib.measures.catalogue import usual
from fidlib.study.config import Config
from fidlib.study.lineage import Lineage, Name, several
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


def over_hosts(studies: Iterable[tuple[Study, Iterable[Name]]]) -> pd.DataFrame:
    """Every measure of models on several hosts, as `fidlib.claims` reads it.

    Args:
        studies: As of `fidlib.make`: each of another seed, and so with another host,
            with its models.

    Returns:
        Columns `seed`, `method`, `measure` and `value`, a row a number; the host is a
        method, too. All of `MEASURES` on test images, and with `_even` or `_odd` in
        their names those of every other one: accuracy, agreement, PFL and SPL.

    Raises:
        ValueError: If two studies have one seed.
    """
    studies = list(studies)
    seeds = [study.config.seed for study, _ in studies]
    if len({*seeds}) < len(seeds):
        raise ValueError(
            f"the studies' seeds are {seeds}; each names its host: use other ones."
        )
    rows = []
    for study, models in studies:
        named = {str(one): one for one in (Lineage(), *several(models))}
        for name, lineage in named.items():
            report = study.fidelity(lineage, measures=[*usual(), *halves.NAMES])
            values = report.values().items()
            rows += [(study.config.seed, name, *pair) for pair in values]
    table = pd.DataFrame(rows, columns=["seed", "method", "measure", "value"])
    return table.dropna().reset_index(drop=True)
