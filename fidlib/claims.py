"""The paper's claims [2], each tried on the reports of the methods at hand."""

from collections.abc import Mapping

import pandas as pd

from fidlib import metrics
from fidlib.fidelity import Fidelity
from fidlib.methods import FLOORS, METHODS

LEARNED = 0.95
"""Trigger accuracy from which a method counts as having embedded its watermark."""

ALIKE = 0.01
"""Accuracies that differ by no more count as alike."""

FAR = 10.0
"""Losses that differ by this factor, or more, are far apart."""

Reports = Mapping[str, Fidelity]


def check(reports: Reports) -> pd.DataFrame:
    """Which of the paper's claims the measurements bear out.

    Methods that did not learn their triggers (`LEARNED`) and the floors of honest
    training embed no watermark and count for nothing; nor do methods of your own, of
    which the paper says nothing.

    Args:
        reports: Name in `METHODS` -> report, all against one host on the same images.

    Returns:
        A row per claim: `measured`, the numbers in words, and `borne_out`: yes; partly,
        if it holds for one of two measures or methods; no; or not tested, if the
        methods that it speaks of are missing or learned no triggers.
    """
    marked = {
        name: report
        for name, report in reports.items()
        if name in METHODS.keys() - {"ref", *FLOORS}
        and (report.trigger_accuracy or 0) >= LEARNED
    }
    claims = {
        "Accuracy cannot tell the methods apart": _accuracy,
        "TWL does not order them as PFL and SPL do": _weight_distance,
        "FixLL keeps the decision boundary": _boundary,
        "PFL and SPL keep the features": _features,
        "Deep fidelity costs no accuracy": _cost,
    }
    rows = {claim: try_it(marked) for claim, try_it in claims.items()}
    table = pd.DataFrame.from_dict(
        rows, orient="index", columns=["measured", "borne_out"]
    )
    return table.rename_axis("claim")


def _accuracy(marked: Reports) -> tuple[str, str]:
    """All accuracies alike, where features are far apart."""
    pfl = {n: r.pfl for n, r in marked.items() if r.pfl is not None}
    if len(pfl) < 2:
        return _untested("two methods")
    accuracy = [marked[name].marked_accuracy for name in pfl]
    low, high = min(pfl.values()), max(pfl.values())
    spread = max(accuracy) - min(accuracy)
    host = next(iter(marked.values())).host_accuracy
    measured = (
        f"{len(pfl)} methods: accuracy {min(accuracy):.4f} to {max(accuracy):.4f}, the "
        f"host's {host:.4f}; PFL {low:.3g} to {high:.3g}"
    )
    return measured, _verdict(spread <= ALIKE and high >= FAR * low)


def _weight_distance(marked: Reports) -> tuple[str, str]:
    """Rank correlations of TWL with both, of those that start from the host."""
    tuned = {n: r for n, r in marked.items() if METHODS[n].start == "host"}
    columns = ("twl", "pfl", "spl")
    rows = {n: [getattr(r, c) for c in columns] for n, r in tuned.items()}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns).dropna()
    if len(table) < 3:
        return _untested("three methods that start from the host")
    table = table.astype(float)
    rho = metrics.rank_correlations(table).loc["twl"]
    near, kept = table.twl.idxmin(), table.pfl.idxmin()
    measured = (
        f"{len(table)} methods from the host: TWL's rank correlation with PFL "
        f"{rho.pfl:.2f}, with SPL {rho.spl:.2f}; lowest TWL {_both(table, near)}; "
        f"lowest PFL {_both(table, kept)}"
    )
    return measured, _verdict(rho.pfl < 0.5, rho.spl < 0.5)


def _boundary(marked: Reports) -> tuple[str, str]:
    """In feature space the head is the boundary; among images planes show it."""
    if not marked.keys() >= {"FixLL", "FTAL"}:
        return _untested("FixLL and FTAL")
    lp = max(r.lp or 0.0 for n, r in marked.items() if METHODS[n].trained == "body")
    measured = f"in feature space LP is at most {lp:.3g}, {marked['FTAL'].lp or 0:.3g} "
    measured += "under FTAL"
    held = [lp == 0]
    free, fixed = (marked[n].plane_disagreement for n in ("FTAL", "FixLL"))
    if free is not None and fixed is not None:
        measured += (
            f"; on planes of images {fixed:.3f} of the points change under FixLL, "
            f"{free:.3f} under FTAL"
        )
        held.append(marked["FixLL"].intervals["plane_disagreement"][1] < free)
    return measured, _verdict(*held)


def _features(marked: Reports) -> tuple[str, str]:
    """PFL of both terms against FixLL without a term."""
    names = ("FixLL", "FixLL+PFL", "FixLL+SPL")
    found = {n: marked[n] for n in names if n in marked}
    pfl = [r.pfl for r in found.values() if r.pfl is not None]
    if len(pfl) < len(names):
        return _untested(", ".join(names))
    told = (f"{n} PFL {r.pfl:.3g}, SPL {r.spl:.2g}" for n, r in found.items())
    return "; ".join(told), _verdict(*(FAR * kept <= pfl[0] for kept in pfl[1:]))


def _cost(marked: Reports) -> tuple[str, str]:
    """Images lost less images gained, with McNemar's standard error."""
    deep = {n: r for n, r in marked.items() if {"PFL", "SPL"} & {*METHODS[n].preserves}}
    if not deep:
        return _untested("a method that preserves PFL or SPL")
    told, held = [], []
    for name, report in deep.items():
        loss = report.churn_lost - report.churn_gained
        changed = report.churn_lost + report.churn_gained
        half = 1.96 * ((changed - loss**2) / report.images) ** 0.5
        told.append(f"{name} {-100 * loss:+.2f} ± {100 * half:.2f} points")
        held.append(loss - half <= 0)
    return "; ".join(told), _verdict(*held)


def _both(table: pd.DataFrame, name: str) -> str:
    row = table.loc[name]
    return f"{name} ({row.twl:.3g}, PFL {row.pfl:.3g})"


def _verdict(*held: bool) -> str:
    return "yes" if all(held) else "partly" if any(held) else "no"


def _untested(needed: str) -> tuple[str, str]:
    return f"needs {needed}, with the triggers learned", "not tested"
