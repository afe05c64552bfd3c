"""Maps of features to two dimensions, and how much of one to believe."""

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd
import torch

from fidlib.measures import geometry

Projection = Literal["umap", "pca"]


@contextlib.contextmanager
def _threads_kept() -> Iterator[None]:
    """Give PyTorch its threads back: numba, under UMAP, raises them to the cores."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@_threads_kept()
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
    fitted = _fitted(mapper, base)
    # One call for all others: UMAP prepares a search each time.
    rest = {n: f[len(base) :] if n == fit else f for n, f in features.items()}
    sizes = np.cumsum([len(r) for r in rest.values()])[:-1]
    stacked = np.concatenate(list(rest.values())).astype(np.float32)
    placed = np.asarray(mapper.transform(stacked)) if len(stacked) else stacked
    places = dict(zip(rest, np.split(placed, sizes), strict=True))
    return places | {fit: np.concatenate([fitted, places[fit].reshape(-1, 2)])}


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


def map_report(
    features: Mapping[str, np.ndarray],
    places: Mapping[str, np.ndarray],
    *,
    fit: str,
    first: int | None = None,
    neighbors: int = 15,
) -> pd.DataFrame:
    """What to read beside a common map: how much of it to believe.

    Args:
        features: Model -> `(N, D)`.
        places: Model -> `(N, 2)`, from `common_map`.
        fit: The model the others are compared with, the host.
        first: Measure on the first so many rows, the images; None takes all.
        neighbors: How many count as nearest on the map.

    Returns:
        A row per model. `trustworthiness` of its map; `neighbors_kept`, the mean
        `geometry.neighbor_overlap` of its feature space with the host's;
        `map_procrustes`, what the best shift, rotation and scale leave of the
        difference between its map and the host's, in [0, 1].
    """
    rows = {}
    for name, xy in places.items():
        points = features[name][:first]
        pair = torch.from_numpy(features[fit][:first]), torch.from_numpy(points)
        kept = geometry.neighbor_overlap(*pair)
        rows[name] = {
            "trustworthiness": trustworthiness(points, xy[:first], neighbors),
            "neighbors_kept": kept.mean().item(),
            "map_procrustes": _residual(places[fit][:first], xy[:first]),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def seed_residual(
    features: np.ndarray,
    xy: np.ndarray,
    *,
    seeds: Sequence[int],
    projection: Projection = "umap",
    neighbors: int = 15,
) -> float:
    """How far a map depends on its seed: mean residual from those of other seeds.

    Procrustes residuals in [0, 1]: 0 if the seed decides nothing, as in PCA.

    Args:
        features: `(N, D)` rows the map was fitted on.
        xy: `(N, 2)` their places on the map.
        seeds: Of the other maps, one or more.
        projection: Of the map.
        neighbors: Of the map.

    Raises:
        ValueError: If there is no other seed.
    """
    if not seeds:
        raise ValueError("seeds is empty; name at least one other seed.")
    settings = {"projection": projection, "neighbors": neighbors}
    others = (
        common_map({"fit": features}, fit="fit", seed=seed, **settings)["fit"]
        for seed in seeds
    )
    return float(np.mean([_residual(xy, other) for other in others]))


def most_moved(
    host_features: np.ndarray, features: np.ndarray, count: int
) -> np.ndarray:
    """Rows whose features moved farthest, the farthest first.

    By distance in feature space, which a map may hide.

    Args:
        host_features: `(N, D)`.
        features: `(N, D)` of the compared model: same images, same order.
        count: How many, at most.

    Returns:
        `(count,)` indices.
    """
    distance = np.square(features - host_features).sum(1)
    return np.argsort(-distance, kind="stable")[:count]


def _residual(xy: np.ndarray, other: np.ndarray) -> float:
    pair = torch.from_numpy(xy), torch.from_numpy(other)
    return geometry.procrustes(*pair).item()


def _fitted(mapper, rows: np.ndarray) -> np.ndarray:
    with warnings.catch_warnings():
        # Classes far apart make a graph of several parts, which UMAP lays out by parts.
        warnings.filterwarnings("ignore", "Graph is not fully connected")
        return np.asarray(mapper.fit_transform(rows))


def _umap(neighbors: int, seed: int):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # umap's own imports: tensorflow, numba
        import umap

    # A seed makes umap use one thread; saying so keeps it from warning.
    # The distance keeps the points of a tight class far enough apart to be seen.
    return umap.UMAP(n_neighbors=neighbors, min_dist=0.5, random_state=seed, n_jobs=1)


def _pca():
    from sklearn.decomposition import PCA

    return PCA(n_components=2, svd_solver="full")  # others draw random numbers
