"""What removal attacks do to marked models, what they cost, and what follows of it."""

import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from fidlib import claims, ownership
from fidlib.attacks import Attack, find
from fidlib.claims import Claim
from fidlib.measures import losses, ranking
from fidlib.measures.intervals import paired_gain
from fidlib.ownership import Key
from fidlib.study.lineage import Lineage, Name, several
from fidlib.study.study import Study

NONE = "none"
"""Stands for an attack where there was none."""

_TOLD = ("agreement", "pfl", "spl")
_MEASURES = (*_TOLD, "accuracy", "churn_lost", "churn_gained")


def attack_curve(
    study: Study,
    models: Iterable[Name],
    attacks: Iterable[str],
    *,
    key: Key | None = None,
    alpha: float = 1e-6,
) -> pd.DataFrame:
    """What attacks do to models, and what they cost; the host is attacked as a control.

    Args:
        study: Whose models they are; what is missing of them is made.
        models: Those that are attacked, besides the host.
        attacks: Such as `prune:0.4`; of each the mildest first.
        key: What is claimed; the study's, committed, when None.
        alpha: The level of the claim; of plain chains 0.01 or more.

    Raises:
        ValueError: If at this level nothing can be proved, whatever a model answers.

    Returns:
        A row for each model, as it is (`none`) and under each attack: `model`,
        `attack`, its `kind` and `strength`; `matches` of `triggers`, with `p`, the
        `threshold` of matches at this level for this suspect, and whether the mark is
        `removed`; `accuracy` on the test images, what is `lost` of the model's, with
        its 95 % interval `low` to `high`, paired, and `tried`, what the attacker sees
        lost on his validation set;
        `agreement`, `pfl` and `spl` with the model that was attacked, and with the host
        (`host_spl` and the like). `spl` is the cost; `restored` is how much nearer the
        host's probabilities it came.
    """
    key = key or ownership.commit(study)
    if key.fresh:  # the same fresh keys for every suspect
        key = replace(key, fresh=functools.cache(key.fresh))
    of_host = ownership.verify(study.model("host"), key, alpha=alpha)
    if of_host.threshold is None:
        raise ValueError(
            f"no attack can be judged by this key. Of the host: {of_host}."
        )
    listed = [None, *map(find, attacks)]
    victims = {one.key: one for one in [Lineage(), *several(models)]}.values()
    return pd.DataFrame(
        [
            _row(study, victim, attack, key, alpha)
            for victim in victims
            for attack in listed
        ]
    )


def _row(
    study: Study, victim: Lineage, attack: Attack | None, key: Key, alpha: float
) -> dict[str, object]:
    of = victim / attack if attack else victim
    evidence = ownership.verify(study.model(of), key, alpha=alpha)
    near, far, before = (
        study.fidelity(a, b, measures=_MEASURES)
        for a, b in ((of, victim), (of, "host"), (victim, "host"))
    )
    gain, half = paired_gain(near.churn_lost or 0, near.churn_gained or 0, near.images)
    labels = study.images("validation").labels
    tried = [
        losses.accuracy(study.outputs(model, "validation").logits, labels)
        for model in (victim, of)
    ]
    row: dict[str, object] = {
        "model": str(victim),
        "attack": attack.name if attack else NONE,
        "kind": attack.preset.kind if attack else NONE,
        "strength": attack.at() if attack else math.nan,
        "matches": evidence.matches,
        "triggers": evidence.n,
        "p": evidence.p,
        "threshold": evidence.threshold,
        "removed": not evidence.holds,
        "accuracy": near.accuracy,
        "lost": (near.churn_lost or 0) - (near.churn_gained or 0),
        "low": -gain - half,
        "high": -gain + half,
        "tried": tried[0] - tried[1],
    }
    row |= {name: near[name].value for name in _TOLD}
    row |= {f"host_{name}": far[name].value for name in _TOLD}
    return row | {"restored": (before.spl or 0.0) - (far.spl or 0.0)}


def chosen(curve: pd.DataFrame, points: float) -> pd.DataFrame:
    """What an attacker settles on who may lose so much, as his validation set says.

    Args:
        curve: As `attack_curve` gives it.
        points: Accuracy that he may lose, a fraction.

    Returns:
        Of each model and attack the last row that costs him no more; none where all
        cost more.
    """
    borne = curve.loc[(curve.attack != NONE) & (curve.tried <= points)]
    return borne.groupby(["model", "attack"], sort=False).tail(1)


def given_up(curve: pd.DataFrame) -> pd.DataFrame:
    """What the cheapest attack must give up until a model's claim falls.

    Args:
        curve: As `attack_curve` gives it.

    Returns:
        Indexed by model, but the host: `attack` and `strength` of the removal that
        loses least accuracy, the first of several; `lost`, that accuracy, 0 where it
        gains, infinite where no attack removes the mark, NaN where none was tried;
        `host_lost`, what the same costs the host; `below_host`, by how much the best
        accuracy after a removal is below the host's, which the mark may have cost in
        part; and `distance`, the SPL of host and model. Models whose claim does not
        stand to begin with are left out.
    """
    plain = curve[curve.attack == NONE].set_index("model")
    attacked = curve.loc[curve.attack != NONE]
    control = attacked.loc[attacked.model == "host", "lost"].to_numpy()
    at_host = plain.accuracy["host"]
    rows = {}
    for name in plain.index[~plain.removed.to_numpy(bool)]:
        points = attacked.loc[attacked.model == name].reset_index(drop=True)
        untried = math.nan if points.empty else math.inf
        row = (NONE, math.nan, untried, math.nan, untried)
        if points.removed.any():
            removals, lost = points.removed.astype(bool), points.lost.clip(lower=0.0)
            cheapest, left = lost[removals].idxmin(), points.accuracy[removals].max()
            attack, strength = points.loc[cheapest, ["attack", "strength"]]
            row = (attack, strength, lost[cheapest], control[cheapest], at_host - left)
        rows[name] = (*row, plain.host_spl[name])
    columns = ["attack", "strength", "lost", "host_lost", "below_host", "distance"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    return table.rename_axis("model")


def hypotheses(
    curves: Mapping[int, pd.DataFrame], quiet: str, plain: str, *, points: float
) -> pd.DataFrame:
    """What is asked of removal attacks, judged over hosts as the paper's claims are.

    Args:
        curves: Of each host's seed, as `attack_curve` gives them, with `quiet-noise`,
            `ft-all` and `fine-tune` among the attacks, each at several strengths.
        quiet: A model whose mark was embedded in quiet directions.
        plain: One that was embedded alike, but in all directions.
        points: Accuracy that whoever fine-tunes may lose on his validation set.

    Returns:
        As `claims.contrasts`. A verdict needs every host: on one that is missing the
        mark did not stand, or no attack removed it, and what is left would be chosen by
        what it shows.
    """
    rows = {}
    for seed, curve in curves.items():
        standing = _standing(curve)
        attacked = Attacked(
            prices=given_up(curve.loc[curve.kind != "copied"]),
            settled=chosen(standing, points),
            of_quiet=standing.loc[standing.model == quiet],
            quiet=quiet,
            plain=plain,
        )
        rows[seed] = {
            (claim.text, name): contrast(attacked)
            for claim in HYPOTHESES
            for name, contrast in claim.contrasts.items()
        }
    table = claims.judge(pd.DataFrame(rows).T, HYPOTHESES)
    some = [len(hosts.split()) < len(curves) for hosts in table.hosts]
    table.loc[some, "verdict"] = "open"
    return table


def _standing(curve: pd.DataFrame) -> pd.DataFrame:
    """The rows of models whose claim stands before they are attacked."""
    plain = curve.loc[curve.attack == NONE]
    names = plain.loc[~plain.removed.astype(bool), "model"]
    return curve.loc[curve.model.isin(names)]


def fidelity_costs(prices: pd.DataFrame, price: str = "lost") -> float:
    """Spearman's correlation, over a host's models, of their distance and their price.

    Above 0 where models that are farther from their host hold out longer, as Zhu et al.
    2024 (arXiv 2404.13518) would have it; 0 where all hold out alike, NaN of fewer than
    three models.

    Args:
        prices: As `given_up` gives it.
        price: `lost`, of the model's own accuracy: a mark that cost accuracy has less
            to lose, and fine-tuning may bring some of it back; or `below_host`.
    """
    # A mark that no attack removed has the highest rank, whatever it would have cost.
    lost = prices[price].clip(upper=1.0).to_numpy(float)
    if len(lost) >= 3 and np.ptp(lost) == 0:
        return 0.0
    return ranking.spearman(prices.distance.to_numpy(float), lost)


def kept_under_sgd(settled: pd.DataFrame, mark: str) -> float:
    """What a mark keeps under SGD (`ft-all`), less what it keeps under Adam.

    It is attacked as strongly as its own attacker may, by either (`fine-tune`).

    Args:
        settled: A host's, as `chosen` gives it.
        mark: The model.

    Returns:
        A share of the triggers; NaN where one of the two is missing.
    """
    of = settled.loc[settled.model == mark]
    kept = (of.matches / of.triggers).groupby(of.attack).last()
    return float(kept.get("ft-all", math.nan) - kept.get("fine-tune", math.nan))


def times_cheaper(curve: pd.DataFrame) -> float:
    """The log of quiet noise's cost over ft-all's, of the cheapest that removes a mark.

    Args:
        curve: A model's, as `attack_curve` gives it.

    Returns:
        Of the SPL from the marked model; NaN where one of them never removes the mark.
    """
    removals = curve.loc[curve.removed.astype(bool) & (curve.attack != NONE)]
    costs = removals.groupby("attack").spl.min().reindex(["quiet-noise", "ft-all"])
    costs = costs.where(costs > 0)
    return float(np.log(costs["quiet-noise"] / costs["ft-all"]))


class Attacked(NamedTuple):
    """What attacks did to the models of a host."""

    prices: pd.DataFrame
    """As `given_up` gives it."""
    settled: pd.DataFrame
    """As `chosen` gives it, of the marks that stood."""
    of_quiet: pd.DataFrame
    """The curve of the quiet mark, if it stood."""
    quiet: str
    plain: str


HYPOTHESES = (
    Claim(
        text="Fidelity costs robustness",
        contrasts={
            "distance and accuracy lost": lambda of: fidelity_costs(of.prices),
            "distance and accuracy below the host's": lambda of: fidelity_costs(
                of.prices, "below_host"
            ),
        },
        unit="of rank correlation",
        least=0.0,
    ),
    Claim(
        text="A quiet mark resists fine-tuning by SGD more than by Adam",
        contrasts={
            "kept under SGD, less under Adam": lambda of: kept_under_sgd(
                of.settled, of.quiet
            ),
            "the same, less the plain mark's": lambda of: (
                kept_under_sgd(of.settled, of.quiet)
                - kept_under_sgd(of.settled, of.plain)
            ),
        },
        unit="of the triggers",
        least=0.0,
    ),
    Claim(
        text="Quiet noise erases a quiet mark at a tenth of the cost of ft-all",
        contrasts={
            "SPL of quiet noise over that of ft-all": lambda of: times_cheaper(
                of.of_quiet
            )
        },
        unit="times",
        most=math.log(0.1),
    ),
)
"""What is asked of attacks, each so that it can fail: whether fidelity costs robustness
(H1), and how quiet marks fare (H2, in two parts)."""
