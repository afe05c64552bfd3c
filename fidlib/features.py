"""Features of a model on images; maps of them to two dimensions."""

import contextlib
import warnings
from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fidlib.models import Classifier

Projection = Literal["umap", "pca"]


class Outputs(NamedTuple):
    """What a classifier makes of N images."""

    features: Tensor
    """`(N, D)` float32, on the images' device."""
    logits: Tensor
    """`(N, K)` float32."""


@torch.no_grad()
def outputs(model: Classifier, images: Tensor, *, batch_size: int = 125) -> Outputs:
    """Features and logits of images, in float32 and eval mode, in batches.

    Args:
        model: Any classifier; its training mode is left as it was.
        images: `(N, C, H, W)` pixels.
        batch_size: Images at a time; bounds the memory, changes no result. At 125, what
            a layer of the paper's ResNet18 makes of MNIST stays in a processor's cache:
            385 images/s a core, 330 at 500.
    """
    training = model.training
    model.eval()
    # cuDNN would round float32 to TF32, which a small PFL would show.
    full = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    try:
        with full if images.is_cuda else contextlib.nullcontext():
            parts = [model.features(part) for part in images.split(batch_size)]
        features = torch.cat(parts)
        return Outputs(features, model.head(features))
    finally:
        model.train(training)


def common_map(
    features: Mapping[str, np.ndarray],
    *,
    fit: str,
    first: int | None = None,
    projection: Projection = "umap",
    neighbors: int = 15,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Two-dimensional maps of several models' features in one common space.

    Fitted on one model, the host, and applied to all: what has not moved in feature
    space does not move on the map.

    Args:
        features: Model -> `(N, D)`, N alike.
        fit: The model that decides the map.
        first: Fit on its first so many rows, so that triggers behind them have no say;
            None fits on all.
        projection: `umap`, or `pca`: linear, instant, and exact at D = 2.
        neighbors: UMAP's neighbourhood.
        seed: UMAP's random state.

    Returns:
        Model -> `(N, 2)`.

    Raises:
        ValueError: If the projection is unknown, there are too few rows for the
            neighbours, or the models' D differ.
    """
    if projection not in ("umap", "pca"):
        raise ValueError(f"unknown projection {projection!r}; use umap or pca.")
    shapes = {f.shape for f in features.values()}
    if len(shapes) != 1:
        raise ValueError(f"features are {shapes}; one map takes one shape, (N, D).")
    base = np.asarray(features[fit][:first], np.float32)
    if base.ndim != 2 or len(base) <= 2 * neighbors:
        raise ValueError(
            f"features are {base.shape}; a map with {neighbors} neighbours needs "
            f"(N, D) with N > {2 * neighbors}: lower neighbors, or show more images."
        )
    mapper = _umap(neighbors, seed) if projection == "umap" else _pca()
    with warnings.catch_warnings():
        # Classes far apart make a graph of several parts, which UMAP lays out by parts.
        warnings.filterwarnings("ignore", "Graph is not fully connected")
        fitted = mapper.fit_transform(base)
    # One call for all others: UMAP prepares a search each time.
    rest = {n: f[len(base) :] if n == fit else f for n, f in features.items()}
    sizes = np.cumsum([len(r) for r in rest.values()])[:-1]
    stacked = np.concatenate(list(rest.values())).astype(np.float32)
    placed = np.asarray(mapper.transform(stacked)) if len(stacked) else stacked
    found = dict(zip(rest, np.split(placed, sizes), strict=True))
    return found | {fit: np.concatenate([fitted, found[fit].reshape(-1, 2)])}


def trustworthiness(features: np.ndarray, xy: np.ndarray, neighbors: int = 15) -> float:
    """How far neighbours on a map are neighbours in feature space, in [0, 1].

    Venna and Kaski 2001: 1 if no point has a false neighbour among its nearest.

    Args:
        features: `(N, D)`, N more than twice `neighbors`.
        xy: `(N, 2)` their positions on the map.
        neighbors: How many count as nearest.
    """
    from sklearn.manifold import trustworthiness

    return float(trustworthiness(features, xy, n_neighbors=neighbors))


def _umap(neighbors: int, seed: int):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # umap's own imports: tensorflow, numba
        import umap

    # A seed makes umap use one thread; saying so keeps it from warning.
    return umap.UMAP(n_neighbors=neighbors, random_state=seed, n_jobs=1)


def _pca():
    from sklearn.decomposition import PCA

    return PCA(n_components=2)
