"""Measures of how alike two models' features are, by distances, layers and heads."""

import torch

from fidlib.measures import geometry
from fidlib.measures.intervals import Statistic
from fidlib.measures.measure import Found, row
from fidlib.measures.pair import Pair

NEIGHBORS = 10
"""Nearest images that count as near."""

_ALIGNED = {"same": 1.0, "by_class": False, "in_table": False}


@row("features", "correlation", "Kriegeskorte et al. 2008", least=200, **_ALIGNED)
def rsa(pair: Pair) -> Found:
    """Correlation of the distances of all pairs of 1,000 images (Pearson's).

    Blind to the head, and to what becomes of near images: far pairs decide.
    """
    if len(pair) < 3:
        return None
    return Statistic(geometry.rsa_terms(*pair.distances))


@row("features", "share of pairs of neighbours", "fidlib", **_ALIGNED)
def mutual_neighbors(pair: Pair) -> Found:
    """Pairs among 1,000 images that are each among the other's ten nearest: those of
    both models over those of either.

    Blind to how far images moved, and to the head.
    """
    constant = any(not matrix.any() for matrix in pair.distances)
    if constant or len(pair) <= NEIGHBORS:
        return None  # none is nearest
    host, marked = (
        geometry.mutual_neighbors(matrix, neighbors=NEIGHBORS)
        for matrix in pair.distances
    )
    either = (host | marked).sum().item()
    # Without an interval: pairs share images, and one of images as if they did not
    # covers .81 for .95 in simulations.
    return (host & marked).sum().item() / either if either else None


@row("features", "share of images", "Bansal et al. 2021", least=5000, **_ALIGNED)
def stitching(pair: Pair) -> Found:
    """The marked model's head names the class that it does when it is given the host's
    features, mapped to the marked model's by least squares.

    Blind to what a linear map undoes, and to how sure an answer is.
    """
    x, y = pair.features
    if len(x) < 4 * x.shape[1]:
        return None  # the map would fit whatever images it is fitted to
    head = pair.marked.head
    stitched = geometry.mapped(x, y) @ head.weight.detach().double().T
    if head.bias is not None:
        stitched += head.bias.detach().double()
    return Statistic((stitched.argmax(1) == pair.answers[1]).double()[:, None])


def _layers(pair: Pair) -> dict[str, float]:
    terms = {name: geometry.cka_terms(*both) for name, both in pair.layers.items()}
    values = {name: geometry.cka_of(each.mean(0)) for name, each in terms.items()}
    return {name: each.item() for name, each in values.items() if each.isfinite()}


@row("layers", "similarity, at most 1", "as cka", parts=_layers, least=1000, **_ALIGNED)
def layer_cka(pair: Pair) -> Found:
    """Mean CKA of the convolutions and linear layers, on 500 images.

    Blind to where in a layer a change lies, and to what few images do.
    """
    if len(pair) < 4 or not pair.layers:
        return None
    terms = torch.cat([geometry.cka_terms(*both) for both in pair.layers.values()], 1)
    return Statistic(
        terms, lambda m: geometry.cka_of(m.unflatten(-1, (-1, 4))).nanmean(-1)
    )
