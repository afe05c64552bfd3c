"""Features of a model on images; maps of them to two dimensions."""

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


@torch.inference_mode()
def outputs(model: Classifier, images: Tensor, *, batch_size: int = 500) -> Outputs:
    """Features and logits of images, in float32 and eval mode, in large batches.

    Args:
        model: Any classifier; its training mode is left as it was.
        images: `(N, C, H, W)` pixels.
        batch_size: Images at a time; bounds the memory, changes no result.
    """
    training = model.training
    model.eval()
    try:
        parts = [model.features(part) for part in images.split(batch_size)]
        features = torch.cat(parts)
        return Outputs(features.clone(), model.head(features).clone())
    finally:
        model.train(training)


class FeatureMap:
    """A map of features to two dimensions, fitted on one model, used for others.

    Fitted on the host and applied to the marked model, it shows both in one common
    space: what has not moved in feature space does not move on the map.

    Args:
        features: `(N, D)` the host's, N > 3.
        projection: `umap`, or `pca`: linear, instant, and exact at D = 2.
        neighbors: UMAP's neighbourhood size, also that of `trustworthiness`.
        seed: UMAP's random state.
    """

    def __init__(
        self,
        features: np.ndarray,
        *,
        projection: Projection = "umap",
        neighbors: int = 15,
        seed: int = 0,
    ) -> None:
        if projection not in ("umap", "pca"):
            raise ValueError(f"unknown projection {projection!r}; use umap or pca.")
        if features.ndim != 2 or len(features) <= max(3, 2 * neighbors):
            raise ValueError(
                f"features are {features.shape}; a map with {neighbors} neighbours "
                f"needs (N, D) with N > {max(3, 2 * neighbors)}: lower neighbors."
            )
        self.neighbors = neighbors
        self.features = np.asarray(features, np.float32)
        self.mapper = _umap(neighbors, seed) if projection == "umap" else _pca()
        self.xy = self.mapper.fit_transform(self.features)

    def transform(self, features: np.ndarray) -> np.ndarray:
        """`(N, 2)` positions of other features `(N, D)` on the same map."""
        if features.shape[1:] != self.features.shape[1:]:
            raise ValueError(
                f"features are {features.shape}; the map was fitted on "
                f"(N, {self.features.shape[1]})."
            )
        return self.mapper.transform(np.asarray(features, np.float32))

    def trustworthiness(
        self, features: np.ndarray | None = None, xy: np.ndarray | None = None
    ) -> float:
        """How far neighbours on the map are neighbours in feature space, in [0, 1].

        Venna and Kaski 2001: 1 if no point has a false neighbour among its nearest
        `neighbors`. Of the fitted features, or of others with their positions.
        """
        from sklearn.manifold import trustworthiness

        features, xy = (self.features, self.xy) if features is None else (features, xy)
        return float(trustworthiness(features, xy, n_neighbors=self.neighbors))


def _umap(neighbors: int, seed: int):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # umap's own imports: tensorflow, numba
        import umap

    # A seed makes umap use one thread; saying so keeps it from warning.
    return umap.UMAP(n_neighbors=neighbors, random_state=seed, n_jobs=1)


def _pca():
    from sklearn.decomposition import PCA

    return PCA(n_components=2)
