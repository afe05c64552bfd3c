"""The claims of Hua & Teoh (2023), judged over hosts.

One model of a method says little of the method. On another host, with its own triggers
and order, most measures are farther off than other test images would put them. So a
claim is about contrasts of methods on the same host, with their intervals over hosts.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from fidlib.methods import FLOORS, LEARNED, METHODS, PAPER

FEWEST = 5
"""Hosts that a verdict needs."""

LEVEL = 0.95
"""Confidence of intervals over hosts."""

OF_SHARES = 0.98
"""Of shares of pairs: they are skewed, so that over eight hosts twice as many intervals
as should lie above a share of .75."""

OF_LOSS = 0.9
"""Of what is lost at most: the one end that is asked for is beyond in 5 % of cases."""

TELLS = 0.75
"""A measure tells models apart if it orders so many pairs of them rightly: half would
be chance, this is half way from it."""

FAR = 10.0
"""Losses that differ by this factor are far apart."""

ALIKE = 0.005
"""A loss of accuracy up to this, half a point, is borne."""

POSSIBLE = {"of the pairs": (0.0, 1.0), "of rank correlation": (-1.0, 1.0)}
"""Unit -> its least and largest value, where an interval over hosts is cut off."""

DOSED = "FTAL+TWL"
"""The method whose weight is turned: names of such models go on with `@`."""

LOGS = ("twl", "lp", "pfl", "spl", "jensen_shannon", "shift_jensen_shannon")
"""Measures whose contrast is a factor."""

NEEDED = (
    *("trigger_accuracy", "accuracy", "twl", "pfl", "spl", "plane_disagreement"),
    *(f"{n}_{half}" for n in ("accuracy", "pfl", "spl", "agreement")
      for half in ("even", "odd")),
)  # fmt: skip
"""Measures that the claims look at: halves are of every other test image."""

TUNED = [name for name in PAPER if METHODS[name].start == "host"]
"""The paper's methods that start from the host, between which a measure should tell."""


Hosts = Any
"""A DataFrame, which types do not follow: a row a host; columns measure, then method.
NaN where a method did not learn its triggers, or was not measured."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What is claimed of each of some contrasts: that it lies in a region."""

    text: str
    """The claim in a sentence."""
    contrasts: Mapping[str, Callable[..., Any]]
    """By name, what gives a number for each host; the claim holds if each does."""
    unit: str
    """Of the contrasts; those in times are logs until they are told."""
    least: float = -math.inf
    """The region's lower end."""
    most: float = math.inf
    """The region's upper end."""
    level: float = LEVEL
    """Confidence of each interval, of which a verdict takes one end."""

    def interval(self, values: np.ndarray, among: int = 1) -> tuple[float, float]:
        """Student's of a contrast's mean, one among so many.

        Args:
            values: `(H,)`, of H hosts; NaN both where there are fewer than two.
            among: How many share the risk that one of their intervals misses.
        """
        from scipy import special

        if len(values) < 2:
            return math.nan, math.nan
        beyond = (1 - self.level) / 2 / among
        width = special.stdtrit(len(values) - 1, 1 - beyond) * values.std(ddof=1)
        half, mean = float(width) / math.sqrt(len(values)), float(values.mean())
        return mean - half, mean + half

    def verdict(self, contrasts: Iterable[np.ndarray]) -> str:
        """`yes`, borne out; `no`, not borne out; or `open`.

        Borne out if every interval lies in the region. Any that lies outside of it is
        enough for a no, so that there they share the risk (Bonferroni: the first step
        of Holm).

        Args:
            contrasts: Of each, its `(H,)` values; those not known are NaN.
        """
        known = [values[np.isfinite(values)] for values in contrasts]
        judged = [values for values in known if len(values) >= FEWEST]
        shared = [self.interval(values, len(known)) for values in judged]
        if any(high < self.least or low > self.most for low, high in shared):
            return "no"
        ends = [self.interval(values) for values in judged]
        inside = all(self.least < low and high < self.most for low, high in ends)
        return "yes" if inside and len(judged) == len(known) else "open"


def check(table: pd.DataFrame) -> pd.DataFrame:
    """Which of the paper's claims are borne out over hosts.

    Args:
        table: As `fidlib.over_hosts` makes it: columns `seed`, which names the host,
            `method`, `measure` and `value`. Methods count where they learned their
            triggers (`LEARNED`).

    Returns:
        A row per claim: `measured`, its contrasts in words, with the hosts; and
        `borne_out`: yes, no or open, as it is of fewer than `FEWEST` hosts.
    """
    hosts: Any = per_host(table)
    intervals, rows = judge(hosts, CLAIMS), {}
    for claim in CLAIMS:
        values = [hosts[claim.text, name].to_numpy() for name in claim.contrasts]
        rows[claim.text] = _sentence(intervals.xs(claim.text)), claim.verdict(values)
    columns = ["measured", "borne_out"]
    verdicts = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    return verdicts.rename_axis("claim")


def contrasts(table: pd.DataFrame) -> pd.DataFrame:
    """The claims' contrasts with their intervals over hosts.

    Args:
        table: As of `check`.

    Returns:
        A row a contrast, indexed by claim and contrast. `value`, the mean over hosts
        (of factors the geometric one); `low` and `high`, its interval, of confidence
        `level`; `least` and `most`, where the region claimed begins and ends; the
        `unit` of all these; `hosts`, on which it is known; `verdict`, of it alone.
    """
    return judge(per_host(table), CLAIMS)


def paired(table: pd.DataFrame, measure: str, first: str, second: str) -> pd.Series:
    """One method against another, paired by host; as a factor for `LOGS`.

    Args:
        table: As of `check`.
        measure: Of the table's.
        first: Method, whose measure is over that of the other, or less it.
        second: The other; `host`, too.

    Returns:
        `value`, `low`, `high`, `unit` and `hosts`, as of `contrasts`.

    Raises:
        ValueError: If the table has no such measure or method.
    """
    for column, names in (("measure", [measure]), ("method", [first, second])):
        if missing := {*names} - {*table[column]}:
            raise ValueError(
                f"the table has no {column} {', '.join(sorted(missing))}; it has "
                f"{', '.join(table[column].unique())}."
            )
    unit = "times" if measure in LOGS else f"of {measure}"
    contrast = _difference(_by_host(table), measure, first, second)
    row = _row(Claim(text="", contrasts={}, unit=unit), contrast)
    return pd.Series({n: row[n] for n in ("value", "low", "high", "unit", "hosts")})


def per_host(table: pd.DataFrame) -> pd.DataFrame:
    """The claims' contrasts on every host.

    Args:
        table: As of `check`.

    Returns:
        A row a seed, a column for each claim and contrast: logs of factors; NaN where a
        model or a measure is missing.
    """
    hosts = _by_host(table)
    return pd.DataFrame(
        {(c.text, n): of(hosts) for c in CLAIMS for n, of in c.contrasts.items()}
    )


def _by_host(table: pd.DataFrame) -> Hosts:
    wide: Any = table.pivot(index="seed", columns=["measure", "method"], values="value")
    measures, methods = (
        list(dict.fromkeys([*needed, *table[column]]))
        for column, needed in (("measure", NEEDED), ("method", ["host", *TUNED]))
    )
    wide = wide.reindex(columns=pd.MultiIndex.from_product([measures, methods]))
    learned = wide["trigger_accuracy"] >= LEARNED
    for name in ("host", *FLOORS):  # which have none to learn
        learned[name] = True
    counts = pd.concat(dict.fromkeys(measures, learned[methods]), axis=1)
    return wide.astype(float).where(counts)


def _difference(hosts: Hosts, measure: str, first: str, second: str) -> pd.Series:
    """One method's measure less another's; of `LOGS` the log of their ratio."""
    pair = hosts[measure][[first, second]]
    if measure in LOGS:
        pair = np.log(pair.where(pair > 0))
    return pair[first] - pair[second]


def _tells(hosts: Hosts, measure: str, sign: int = 1) -> pd.Series:
    """How well a measure orders the methods as the answers that they change.

    Each is taken from one half of the test images, for what they have in common by
    chance would make them agree.
    """
    shares = [
        _ordered(sign * hosts[f"{measure}_{a}"][TUNED], -hosts[f"agreement_{b}"][TUNED])
        for a, b in (("even", "odd"), ("odd", "even"))
    ]
    return (shares[0] + shares[1]) / 2


def _dosed(hosts: Hosts, measure: str) -> pd.Series:
    """How well TWL orders one method's models, its weight turned, as a measure does."""
    models = [m for m in hosts["twl"] if m.split("@")[0] == DOSED]
    return _ordered(hosts["twl"][models], hosts[measure][models])


def _ordered(measure: pd.DataFrame, other: pd.DataFrame) -> pd.Series:
    """Share of the pairs of models that two measures order alike; ties count half.

    Args:
        measure: A row a host, a column a model.
        other: Another measure of the same hosts and models.

    Returns:
        A share a host; NaN of fewer than three models.
    """
    first, second = np.triu_indices(measure.shape[1], 1)
    signs = [
        np.sign(x[:, first] - x[:, second]) for x in map(np.asarray, (measure, other))
    ]
    alike = signs[0] * signs[1]
    pairs = np.isfinite(alike).sum(1)
    mean = np.nansum(alike, 1) / np.maximum(pairs, 1)
    return pd.Series(np.where(pairs >= 3, (1 + mean) / 2, math.nan), measure.index)


def judge(values: Any, claims: Iterable[Claim]) -> pd.DataFrame:
    """What `contrasts` gives, of any claims.

    Args:
        values: A row a host, a column for each claim and contrast; NaN: not known.
        claims: Those of the columns.
    """
    rows = {
        (claim.text, name): _row(claim, values[claim.text, name])
        for claim in claims
        for name in claim.contrasts
    }
    table = pd.DataFrame.from_dict(rows, orient="index")
    return table.rename_axis(["claim", "contrast"])


def _row(claim: Claim, contrast: pd.Series) -> dict[str, Any]:
    known = contrast.loc[np.isfinite(contrast.to_numpy(float))]
    values = known.to_numpy()
    mean = values.mean() if len(values) else math.nan
    ends = np.clip(claim.interval(values), *POSSIBLE.get(claim.unit, (None, None)))
    numbers = [mean, *ends.tolist(), claim.least, claim.most]
    if claim.unit == "times":
        numbers = np.exp(numbers).tolist()
    row: dict[str, Any] = dict(
        zip(["value", "low", "high", "least", "most"], numbers, strict=True)
    )
    row |= {"level": claim.level, "unit": claim.unit}
    hosts, verdict = " ".join(map(str, known.index)), claim.verdict([values])
    return row | {"hosts": hosts, "verdict": verdict}


def _sentence(rows: pd.DataFrame) -> str:
    """A claim's contrasts in words, with their hosts."""
    hosts = dict.fromkeys(host for names in rows.hosts for host in names.split())
    parts = [_told(name, row) for name, row in rows.iterrows()]
    count = f"{len(hosts)} host{'s' * (len(hosts) > 1)}"
    which = f"{count} (seed {' '.join(hosts)})" if hosts else "no host"
    few = min(len(names.split()) for names in rows.hosts) < FEWEST
    needed = f", and a verdict needs {FEWEST}" * few
    return f"{'; '.join(parts)}; {which}{needed}"


def _told(name: object, row: pd.Series) -> str:
    if not row.hosts:
        return f"{name} not known"
    rounded = (float(f"{row[n]:.3g}") for n in ("value", "low", "high"))
    value, low, high = (f"{number:,g}" for number in rounded)
    ends = f" [{low}, {high}]" if math.isfinite(row.low) else ""
    return f"{name} {value} {row.unit}{ends}"


CLAIMS = (
    Claim(
        text="Accuracy does not tell which method changes fewer answers",
        contrasts={"accuracy": partial(_tells, measure="accuracy", sign=-1)},
        unit="of the pairs",
        level=OF_SHARES,
        most=TELLS,
    ),
    Claim(
        text="PFL and SPL tell which method changes fewer answers",
        contrasts={n: partial(_tells, measure=n.lower()) for n in ("PFL", "SPL")},
        unit="of the pairs",
        level=OF_SHARES,
        least=TELLS,
    ),
    Claim(
        text="TWL does not tell which weight keeps features and probabilities nearer",
        contrasts={n: partial(_dosed, measure=n.lower()) for n in ("PFL", "SPL")},
        unit="of the pairs",
        level=OF_SHARES,
        most=TELLS,
    ),
    Claim(
        text="FixLL keeps more of the decision boundary than FTAL",
        contrasts={
            f"FTAL{term} less FixLL{term}": partial(
                _difference,
                measure="plane_disagreement",
                first=f"FTAL{term}",
                second=f"FixLL{term}",
            )
            for term in ("", "+TWL")
        },
        unit="of the points",
        least=0.0,
    ),
    Claim(
        text="PFL and SPL keep the features ten times nearer than FixLL",
        contrasts={
            f"FixLL over {name}": partial(
                _difference, measure="pfl", first="FixLL", second=name
            )
            for name in ("FixLL+PFL", "FixLL+SPL")
        },
        unit="times",
        least=math.log(FAR),
    ),
    Claim(
        text="PFL and SPL cost at most half a point of accuracy",
        contrasts={
            f"{name} less the host": partial(
                _difference, measure="accuracy", first=name, second="host"
            )
            for name in ("FixLL+PFL", "FixLL+SPL")
        },
        unit="of accuracy",
        least=-ALIKE,
        level=OF_LOSS,
    ),
)
"""As the paper has them, each so that it can fail."""
