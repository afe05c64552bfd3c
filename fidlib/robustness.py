"""What removal attacks do to marked models, what they cost, and what follows of it."""

import math
from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike

from fidlib import ownership
from fidlib.attacks import Attack, find
from fidlib.measures import losses, ranking
from fidlib.measures.fidelity import Fidelity
from fidlib.measures.intervals import Estimate, student
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
        alpha: The level of the claim.

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
    lost = _lost(near)
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
        "lost": lost.value,
        "low": lost.low,
        "high": lost.high,
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
        loses least accuracy; `lost`, that accuracy, 0 where it gains, infinite where no
        attack removes the mark; `host_lost`, what the same costs the host; and
        `distance`, the SPL of host and model. Models whose claim does not stand to
        begin with are left out.
    """
    plain = curve[curve.attack == NONE].set_index("model")
    attacked = curve.loc[curve.attack != NONE]
    control = attacked.loc[attacked.model == "host", "lost"].to_numpy()
    rows = {}
    for name in plain.index[~plain.removed.to_numpy(bool)]:
        points = attacked.loc[attacked.model == name].reset_index(drop=True)
        row = (NONE, math.nan, math.inf, math.nan)
        if points.removed.any():
            cheapest = points.lost[points.removed.astype(bool)].idxmin()
            point = points.loc[cheapest, ["attack", "strength", "lost"]]
            row = (*point[:2], max(0.0, point.lost), control[cheapest])
        rows[name] = (*row, plain.host_spl[name])
    columns = ["attack", "strength", "lost", "host_lost", "distance"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    return table.rename_axis("model")


def fidelity_costs(table: pd.DataFrame) -> Estimate:
    """H1: does fidelity cost robustness? Spearman's within each host, over hosts.

    Above 0 where models that are farther from their host hold out longer, as Zhu et al.
    2024 would have it. A host whose models all hold out alike says nothing.

    Args:
        table: A row for each marked model: what `host` it has, its `distance` from it
            and the accuracy that must be `lost`, as `given_up` has them.

    Returns:
        The mean correlation, with its 95 % interval by Student's t over hosts.
    """
    # A mark that no attack removed has the highest rank, whatever it would have cost.
    finite = table.assign(lost=table.lost.clip(upper=1.0))
    groups = finite.groupby("host")[["distance", "lost"]]
    return _over_hosts([ranking.spearman(*one.to_numpy(float).T) for _, one in groups])


def quiet_resists(table: pd.DataFrame) -> Estimate:
    """H2: does a quiet mark resist SGD's fine-tuning better than Adam's?

    The contrast of contrasts: what the quiet mark keeps more than the plain one under
    SGD, less what it keeps more under Adam.

    Args:
        table: A row for each host, mark (`quiet` or `plain`) and optimizer (`sgd` or
            `adam`), columns of these names, and `kept`, the share of triggers matched.

    Returns:
        Its mean, with its 95 % interval by Student's t over hosts.
    """
    kept = table.set_index(["host", "mark", "optimizer"]).kept.unstack(["mark"])
    more = (kept["quiet"] - kept["plain"]).unstack("optimizer")
    return _over_hosts(more["sgd"] - more["adam"])


def times_cheaper(table: pd.DataFrame) -> Estimate:
    """H2: at what share of ft-all's cost quiet noise removes a quiet mark, over hosts.

    Args:
        table: A row for each host; columns `quiet-noise` and `ft-all`, the SPL from the
            marked model of the mildest of each that removes the mark.

    Returns:
        The geometric mean of the shares, with its 95 % interval by Student's t over
        hosts of their logarithm.
    """
    shares = np.log((table["quiet-noise"] / table["ft-all"]).to_numpy(float))
    return Estimate(*(None if v is None else math.exp(v) for v in _over_hosts(shares)))


def _over_hosts(values: ArrayLike) -> Estimate:
    """A mean over hosts with its 95 % interval by Student's t; NaN are left out."""
    numbers = np.asarray(values, float)
    numbers = numbers[np.isfinite(numbers)]
    if len(numbers) < 2:
        return Estimate(float(numbers.mean()) if len(numbers) else None, None, None)
    low, high = student(torch.from_numpy(numbers))
    return Estimate(float(numbers.mean()), float(low), float(high))


def _lost(report: Fidelity) -> Estimate:
    """The accuracy that the second model loses, paired by image.

    One more image is lost and one gained in its interval, so that it has a width where
    none was (Bonett and Price 2012, J. Educ. Behav. Stat. 37).
    """
    lost, gained = report.churn_lost or 0.0, report.churn_gained or 0.0
    each = torch.zeros(report.images + 2)
    first, last = (round(share * report.images) + 1 for share in (lost, gained))
    each[:first], each[-last:] = 1, -1
    low, high = student(each)
    return Estimate(lost - gained, float(low), float(high))
