"""The paper's claims [2], each tried on the reports of its methods."""

import math
from collections.abc import Mapping
from itertools import combinations, permutations

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike

from fidlib.measures import intervals, ranking
from fidlib.measures.fidelity import Fidelity
from fidlib.methods import LEARNED, METHODS, PAPER

ALIKE = 0.005
"""A loss of accuracy up to this, half a point, is borne."""

FAR = 10.0
"""Losses that differ by this factor, or more, are far apart."""

NEARER = 2.0
"""Weights are clearly nearer to the host's where TWL is smaller by this factor."""

WRONG = 0.25
"""A measure does not order methods if so many pairs, or more, are the wrong way round:
half would be chance, this is half way to it."""

TELLS = 0.5
"""Accuracy can tell which method keeps the features if it says so of so many pairs."""

SLIGHT = 0.01
"""A gain of accuracy below this, one point, tells nothing of a pair."""

Reports = Mapping[str, Fidelity]


def check(reports: Reports) -> pd.DataFrame:
    """Which of the paper's claims the measurements bear out.

    Only the paper's own methods that start from the host count, and of those only the
    ones that embedded their watermark (`LEARNED`).

    Args:
        reports: Method name -> its report, all against one host on the same images.

    Returns:
        A row per claim: `measured`, the numbers in words, and `borne_out`: yes; partly,
        if it holds for some of the methods or measures that it speaks of and not for
        others; no, if it holds for none or, where that is open for the others, not for
        one; undecided, if the intervals leave both open; or not tested, if a method
        that it speaks of is missing or learned no triggers.
    """
    marked = {
        name: reports[name]
        for name in PAPER
        if name in reports
        and METHODS[name].start == "host"
        and (reports[name].trigger_accuracy or 0) >= LEARNED
    }
    claims = {
        "Accuracy cannot tell which method keeps the features": _accuracy,
        "TWL does not order the methods as PFL and SPL do": _weight_distance,
        "FixLL keeps more of the decision boundary than FTAL": _boundary,
        "PFL and SPL keep the features ten times nearer than FixLL": _features,
        "PFL and SPL cost at most half a point of accuracy": _cost,
    }
    rows = {claim: try_it(marked) for claim, try_it in claims.items()}
    columns = ["measured", "borne_out"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    return table.rename_axis("claim")


def accuracy_pairs(
    right: Mapping[str, ArrayLike], pfl: Mapping[str, float]
) -> pd.DataFrame:
    """Does accuracy tell which of two methods keeps the features? Every pair.

    Args:
        right: Method -> `(N,)` whether its answer is right, on the same images.
        pfl: Method -> its PFL.

    Returns:
        A row for each pair of methods, `(nearer, farther)` in PFL: how many `times PFL`
        the farther has, the accuracy `gained` by the nearer, and `low` and `high`, the
        95 % interval of that, paired by image; the pairs farthest apart first.
    """
    rows = []
    for near, far in combinations(sorted(right, key=pfl.__getitem__), 2):
        a, b = (np.asarray(right[name], bool) for name in (near, far))
        gain, half = intervals.paired_gain((b & ~a).mean(), (a & ~b).mean(), len(a))
        times = pfl[far] / pfl[near] if pfl[near] else math.inf
        rows.append((near, far, times, gain, gain - half, gain + half))
    columns = ["nearer", "farther", "times PFL", "gained", "low", "high"]
    table = pd.DataFrame(rows, columns=columns).set_index(columns[:2])
    return table.sort_values("times PFL", ascending=False)


def _accuracy(marked: Reports) -> tuple[str, str]:
    """Pairs far apart in PFL: is the one that keeps the features the more accurate?

    Both are paired with the host, image by image, so the images' own difficulty is out;
    what the two lose together is not, and the intervals are wider for it. Where one
    reaches from no gain to a large one, it is not known whether accuracy would tell.
    """
    pfl = {n: r.pfl for n, r in marked.items() if r.pfl}  # a fixed body has none
    if len(pfl) < 2:
        return _untested("two methods that train the body")
    far = [(a, b) for a, b in permutations(pfl, 2) if FAR * pfl[a] <= pfl[b]]
    gains = [_gain_over(marked[a], marked[b]) for a, b in far]
    kept = sum(low > 0 for low, _ in gains)
    lost = sum(high < 0 for _, high in gains)
    slight = sum(low <= 0 and high < SLIGHT for low, high in gains)
    ends = min(pfl, key=pfl.__getitem__), max(pfl, key=pfl.__getitem__)
    told = " and of ".join(
        f"{n} (PFL {pfl[n]:.3g}) {marked[n].accuracy:.4f}" for n in ends
    )
    lost_by = [-_gain(marked[n])[0] for n in pfl]
    found = ranking.rank_correlation([*pfl.values()], lost_by)
    told += f"; PFL and lost accuracy have {found}"
    if not far:
        return f"no two methods are far apart in PFL; accuracy of {told}", "undecided"
    measured = (
        f"of {len(far)} pairs far apart in PFL the method that keeps the features is "
        f"clearly the more accurate in {kept} and clearly the less in {lost}, and in "
        f"{slight} it gains less than a point, if anything; accuracy of {told}"
    )
    if kept >= TELLS * len(far) or slight > TELLS * len(far):
        return measured, _verdict(kept < TELLS * len(far))
    return measured, "undecided"


def _weight_distance(marked: Reports) -> tuple[str, str]:
    """Pairs of which one is clearly nearer in weights, and clearly farther in function.

    Rank correlations are told, not judged: of so few methods they are uncertain.
    """
    moved = {n: r for n, r in marked.items() if r.twl and r.pfl}
    if len(moved) < 3:
        return _untested("three methods that train the body")
    twl = {n: r.twl or 0.0 for n, r in moved.items()}
    nearer = [(a, b) for a, b in permutations(moved, 2) if NEARER * twl[a] <= twl[b]]
    told, held, unjudged = [], [], False
    for measure in ("pfl", "spl"):
        value = {n: r[measure].value or 0.0 for n, r in moved.items()}
        bounds = {n: _bounds(r, measure) for n, r in moved.items()}
        wrong = [(a, b) for a, b in nearer if bounds[a][0] > bounds[b][1]]
        right = [(a, b) for a, b in nearer if bounds[a][1] < bounds[b][0]]
        judged = len(wrong) + len(right)
        text = f"{measure.upper()}: {len(wrong)} of the {judged} pairs that it tells "
        text += "apart the wrong way round, "
        text += str(ranking.rank_correlation([*twl.values()], [*value.values()]))
        if wrong:
            a, b = max(wrong, key=lambda pair: value[pair[0]] / value[pair[1]])
            text += f"; {a} has TWL {twl[a]:.3g} and {value[a]:.3g}, {b} {twl[b]:.3g} "
            text += f"and {value[b]:.3g}"
        told.append(text)
        held.append(len(wrong) >= WRONG * judged)
        unjudged |= not judged
    return ". ".join(told), "undecided" if unjudged else _verdict(*held)


def _boundary(marked: Reports) -> tuple[str, str]:
    """Planes of images: in feature space a fixed head keeps it by construction.

    Both have the same planes, of which some are hard for every model: they are paired.
    Both with a penalty on weights differ in their heads alone too; they are told.
    """
    shares = {n: r.parts("plane_disagreement") for n, r in marked.items()}
    planes = {n: [*each.values()] for n, each in shares.items() if each}
    if not planes.keys() >= {"FixLL", "FTAL"}:
        return _untested("planes of images under FixLL and FTAL")
    lp = " and ".join(f"{marked[n].lp or 0:.3g} under {n}" for n in ("FixLL", "FTAL"))
    share = " and ".join(
        f"{sum(planes[n]) / len(planes[n]):.3f} under {n}" for n in ("FixLL", "FTAL")
    )
    kept, low, high = _kept(planes["FixLL"], planes["FTAL"])
    measured = (
        f"LP {lp}; share of points on planes of images that change {share}: plane by "
        f"plane FixLL changes {kept:.3f} [{low:.3f}, {high:.3f}] less"
    )
    if planes.keys() >= {"FixLL+TWL", "FTAL+TWL"}:
        told = _kept(planes["FixLL+TWL"], planes["FTAL+TWL"])
        text = ", and FixLL+TWL {:.3f} [{:.3f}, {:.3f}] less than FTAL+TWL"
        measured += text.format(*told)
    if low > 0 or high < 0:
        return measured, _verdict(low > 0)
    return measured, "undecided"


def _kept(fixed: list[float], free: list[float]) -> tuple[float, float, float]:
    """What a fixed head changes less, plane by plane, with its 95 % interval."""
    most, least = torch.tensor([free, fixed], dtype=torch.float64)
    kept = intervals.Statistic((most - least)[:, None])
    low, high = intervals.bootstrap({"kept": kept})["kept"] or (-1.0, 1.0)
    return kept.value() or 0.0, low, high


def _features(marked: Reports) -> tuple[str, str]:
    """PFL with either term against PFL without; neighbours are told, not judged."""
    names = ("FixLL", "FixLL+PFL", "FixLL+SPL")
    if not marked.keys() >= {*names} or not marked["FixLL"].pfl:
        return _untested("FixLL, FixLL+PFL and FixLL+SPL")
    (low, high), *others = (_bounds(marked[n], "pfl") for n in names)
    verdicts = [
        "yes" if FAR * most <= low else "no" if FAR * least > high else "undecided"
        for least, most in others
    ]
    told = (
        f"{n} PFL {marked[n].pfl:.3g} ({marked[n].pfl_relative or 0:.2g} of the host's "
        f"variance, {marked[n].neighbor_overlap or 0:.2f} of the neighbours kept)"
        + verdict
        for n, verdict in zip(names, ["", *(f": {v}" for v in verdicts)], strict=True)
    )
    return "; ".join(told), _together(verdicts)


def _cost(marked: Reports) -> tuple[str, str]:
    """Against the host, with a 95 % interval."""
    if not marked.keys() >= {"FixLL+PFL", "FixLL+SPL"}:
        return _untested("FixLL+PFL and FixLL+SPL")
    told, verdicts = [], []
    for name in ("FixLL+PFL", "FixLL+SPL", "FixLL", "FTAL"):
        if name not in marked:
            continue
        gain, half = _gain(marked[name])
        text = f"{name} {100 * gain:+.2f} ± {100 * half:.2f}"
        if name in ("FixLL+PFL", "FixLL+SPL"):
            none, some = gain - half >= -ALIKE, gain + half < -ALIKE
            verdicts.append(_verdict(none) if none or some else "undecided")
            text += f" ({verdicts[-1]})"
        told.append(text)
    return f"points gained: {', '.join(told)}", _together(verdicts)


def _bounds(report: Fidelity, measure: str) -> tuple[float, float]:
    """Ends of a measure's interval; its value twice where it has none."""
    value, low, high = report[measure]
    value = value or 0.0
    return (value if low is None else low), (value if high is None else high)


def _gain(report: Fidelity) -> tuple[float, float]:
    """Accuracy over the host's, paired by image, and half its 95 % interval."""
    lost, gained = report.churn_lost or 0.0, report.churn_gained or 0.0
    return intervals.paired_gain(lost, gained, report.images)


def _gain_over(a: Fidelity, b: Fidelity) -> tuple[float, float]:
    """Ends of the 95 % interval of a's accuracy less b's.

    A report knows the host's answers, not another model's: as if of different images,
    and so rather wide. `accuracy_pairs` has the answers and pairs them.
    """
    (gain, half), (other, other_half) = _gain(a), _gain(b)
    both = (half**2 + other_half**2) ** 0.5
    return gain - other - both, gain - other + both


def _verdict(*held: bool) -> str:
    return "yes" if all(held) else "partly" if any(held) else "no"


def _together(verdicts: list[str]) -> str:
    """One verdict of those on several methods, of all of which a claim speaks."""
    if "undecided" in verdicts and "no" not in verdicts:
        return "undecided"
    return _verdict(*(verdict == "yes" for verdict in verdicts))


def _untested(needed: str) -> tuple[str, str]:
    return f"needs {needed}, with the triggers learned", "not tested"
