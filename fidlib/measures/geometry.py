"""How alike two sets of features are, however they are turned, shifted or scaled.

CKA and the Procrustes residual are functions of means over images: `*_terms` gives
what each image adds, `*_of` the measure from the means. At the plain means the measure
is exact; at others it is right to first order, because what was fitted to all images
(the centre, the rotation, the other images of a pair) is kept.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

PERMUTATIONS = 10
"""Orders of the images, for what unrelated features give."""

NEAR = 0.02
"""Share of the images that are an image's neighbours."""

FEWEST = 10
"""Images that neighbours need."""

RESOLVED = 1e-7
"""Features that spread less than this share of their size vary by rounding alone."""


def cka(host_features: Tensor, features: Tensor) -> Tensor:
    """Centered kernel alignment, linear and debiased (Kornblith et al. 2019).

    1 for features that differ by a rotation, a shift and a scale. HSIC is estimated
    without bias (Song et al. 2012), so features that have nothing in common give 0 on
    average even where N < D; a single value may then be negative.

    Args:
        host_features: `(N, D)`.
        features: `(N, E)` of the compared model: same images, same order.

    Returns:
        Scalar. Time O(N D E), memory O(N + D E).

    Raises:
        ValueError: If N < 4, or one of the two is the same for all images.
    """
    if len(features) < 4:
        raise ValueError(f"{len(features)} images came; debiased CKA needs four.")
    return _defined(cka_of(cka_terms(host_features, features).mean(0)), "CKA")


def cka_terms(host_features: Tensor, features: Tensor) -> Tensor:
    """What each image adds to CKA: `(N, 4)`, all NaN where CKA is undefined.

    In the means: the change of CKA, the sizes of both covariances (1 on the images
    themselves), and CKA. Dividing the change by the sizes makes it exact to second
    order in them, which a few far features need.
    """
    x, y = centered(host_features, features)
    both, host, model = (_hsic_terms(*pair) for pair in ((x, y), (x, x), (y, y)))
    defined = (host.mean() > 0) & (model.mean() > 0)
    norm = torch.where(defined, (host.mean() * model.mean()).abs().sqrt(), torch.nan)
    host, model = host / host.mean(), model / model.mean()
    value = both.mean() / norm
    change = both / norm - value * (host + model) / 2
    terms = (change, (1 + host) / 2, (1 + model) / 2, value.expand_as(change))
    return torch.stack(terms, 1)


def cka_of(means: Tensor) -> Tensor:
    """CKA `(...)` from means of `cka_terms` `(..., 4)`; NaN where it is undefined."""
    change, host, model, value = means.unbind(-1)
    defined = (host > 0) & (model > 0)
    return torch.where(defined, value + change / (host * model), torch.nan)


def procrustes(host_features: Tensor, features: Tensor) -> Tensor:
    """What the best rotation, shift and scale leave of the difference, in [0, 1].

    Squared distance over the host's variance, both scaled to unit size first: the
    disparity of `scipy.spatial.procrustes`, a reflection allowed.

    Args:
        host_features: `(N, D)`.
        features: `(N, E)` of the compared model; the narrower is padded by zeros.

    Raises:
        ValueError: If one of the two is the same for all images.
    """
    terms = procrustes_terms(host_features, features)
    return _defined(procrustes_of(terms.mean(0)), "the Procrustes residual")


def procrustes_terms(host_features: Tensor, features: Tensor) -> Tensor:
    """`(N, 3)` whose means are the covariance once rotated and the two variances."""
    x, y = (_compact(part) for part in centered(host_features, features))
    # On the CPU, which is the faster at matrices as small as a class gives.
    factors = torch.linalg.svd((x.T @ y).cpu(), full_matrices=False)
    left, _, right = (part.to(x.device) for part in factors)
    products = ((x @ left) * (y @ right.T), x.square(), y.square())
    return torch.stack([product.sum(1) for product in products], 1)


def procrustes_of(means: Tensor) -> Tensor:
    """Residual `(...)` from means of `procrustes_terms`; NaN where it is undefined."""
    both, host, model = means.unbind(-1)
    residual = 1 - both.square() / (host * model)
    return torch.where(residual < 1e-12, torch.zeros_like(residual), residual)


def procrustes_null(
    host_features: Tensor, features: Tensor, generator: torch.Generator
) -> float:
    """The residual of the same features, the images of one in another order.

    What features that have nothing in common give: nearly 1, but for few images of
    many features (.35 for 50 of 64). The mean over `PERMUTATIONS` orders.

    Args:
        host_features: `(N, D)`.
        features: `(N, E)` of the compared model: same images, same order.
        generator: On the CPU.
    """
    x, y = (_compact(part) for part in centered(host_features, features))
    scale = (x.square().sum() * y.square().sum()).cpu()
    total = torch.zeros_like(scale)
    for _ in range(PERMUTATIONS):
        order = torch.randperm(len(x), generator=generator).to(x.device)
        total += 1 - torch.linalg.svdvals((x.T @ y[order]).cpu()).sum().square() / scale
    return total.item() / PERMUTATIONS


def neighbor_overlap(host_features: Tensor, features: Tensor) -> Tensor:
    """Share of each image's nearest neighbours that it keeps, beyond chance: `(N,)`.

    The mean is 1 if all are kept, about 0 if no more are than would be by chance.
    Neighbours by L2 distance, the image itself left out. They are the nearest
    `NEAR` of all N, so that the mean hardly depends on N.

    Args:
        host_features: `(N, D)`.
        features: `(N, E)` of the compared model: same images, same order.

    Raises:
        ValueError: If there are fewer than `FEWEST` images, or one of the two is the
            same for all images.
    """
    count = len(features)
    if count < FEWEST:
        raise ValueError(f"{count} images came; neighbours need {FEWEST} or more.")
    size = max(1, round(NEAR * count))
    near = []
    for points in centered(host_features, features):
        if not points.any():
            raise ValueError("features are the same for all images: none is nearest.")
        near.append(_nearest(points, size))
    both = torch.cat(near, 1).sort(1).values  # a neighbour that is kept comes twice
    kept = (both[:, 1:] == both[:, :-1]).sum(1) / size
    chance = size / (count - 1)
    return ((kept.double() - chance) / (1 - chance)).to(features.device)


def distances(features: Tensor) -> Tensor:
    """`(N, N)` L2 distances among features `(N, D)`, exact for near ones too."""
    (points,) = centered(features)
    return torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")


def rsa_terms(host_distances: Tensor, distances: Tensor) -> Tensor:
    """`(N, 1)` whose mean is Pearson's correlation of the distances of all pairs.

    To first order it is that of a resample, too: an image changes an average over pairs
    by twice what its own pairs are above it.

    Args:
        host_distances: `(N, N)`, as of `distances`.
        distances: `(N, N)` of the compared model.
    """
    away = ~torch.eye(len(distances), dtype=torch.bool, device=distances.device)
    scores = []
    for matrix in (host_distances, distances):
        pairs = matrix[away]
        scores.append((matrix - pairs.mean()) / pairs.std(correction=0))
    x, y = scores
    terms = (1 - (x - y).square() / 2, x.square() + y.square())
    each, sizes = ((part * away).sum(1) / (len(away) - 1) for part in terms)
    value = each.mean()
    return (value + 2 * (each - value) + (1 - value) * (sizes - 2))[:, None]


def mutual_neighbors(distances: Tensor, *, neighbors: int) -> Tensor:
    """`(N, N)` bool: which two are each among the other's nearest, of so many.

    Args:
        distances: `(N, N)`, as of `distances`.
        neighbors: k, fewer than N.
    """
    others = distances.clone().fill_diagonal_(torch.inf)
    near = torch.zeros_like(others, dtype=torch.bool)
    near.scatter_(1, others.topk(neighbors, largest=False).indices, True)
    return near & near.T


def mapped(host_features: Tensor, features: Tensor) -> Tensor:
    """The features as an affine map of the host's gives them, by least squares.

    Each half of the images, every second one, by the map fitted to the other half.

    Args:
        host_features: `(N, D)`.
        features: `(N, E)` of the compared model: same images, same order.

    Returns:
        `(N, E)`.
    """
    x, y = F.pad(host_features, (0, 1), value=1.0), features
    prediction = torch.empty_like(y)
    even, odd = slice(0, None, 2), slice(1, None, 2)
    for half, other in ((even, odd), (odd, even)):
        prediction[half] = x[half] @ (torch.linalg.pinv(x[other]) @ y[other])
    return prediction


def _nearest(points: Tensor, count: int) -> Tensor:
    """`(N, count)` nearest others of each of `(N, D)` points."""
    if points.is_cuda:
        return nearest_by_product(points, count)
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=count).fit(points.numpy())
    return torch.from_numpy(search.kneighbors(return_distance=False))


def nearest_by_product(points: Tensor, count: int) -> Tensor:
    """The same by all distances, as a GPU has them at once, a thousand rows at a time.

    Args:
        points: `(N, D)`.
        count: k.

    Returns:
        `(N, k)` numbers of the nearest others.
    """
    indices = []
    for rows in torch.arange(len(points), device=points.device)[:, None].split(1000):
        distances = torch.cdist(points[rows[:, 0]], points)
        distances.scatter_(1, rows, torch.inf)
        indices.append(distances.topk(count, largest=False).indices)
    return torch.cat(indices)


def centered(*features: Tensor) -> list[Tensor]:
    """Features `(N, D)` less their mean, float64; zeros where only rounding is left.

    Raises:
        ValueError: If they are not of the same N images.
    """
    if len({len(f) for f in features}) != 1 or any(f.ndim != 2 for f in features):
        raise ValueError(
            f"features are {[tuple(f.shape) for f in features]}; expected (N, D) of "
            "the same N images."
        )
    parts = []
    for double in (f.double() for f in features):
        moved = double - double.mean(0)
        parts.append(moved * (moved.norm() > RESOLVED * double.norm()))
    return parts


def _compact(points: Tensor) -> Tensor:
    """`(N, N)` of the same inner products as `(N, D)`, where D is more than N."""
    if points.shape[1] <= len(points):
        return points
    return torch.linalg.qr(points.T, mode="r").R.T


def _hsic_terms(x: Tensor, y: Tensor) -> Tensor:
    """`(N,)` with the unbiased HSIC of linear kernels as mean.

    HSIC is A - 2 C + B: averages of k_ij l_ij, k_ij l_iq and k_ij l_qr over distinct
    images. An average over m images changes, with the weight of one of them, by m times
    what the tuples that hold it are above the average.

    Args:
        x: `(N, D)`, centered, so that the row sums of its kernel are `-|x|^2` once the
            diagonal is left out.
        y: `(N, E)`, centered.
    """
    n = len(x)
    xx, yy = x.square().sum(1), y.square().sum(1)
    diagonal = xx * yy
    pairs = ((x @ (x.T @ y)) * y).sum(1) - diagonal
    cross = x @ (x.T @ yy) + y @ (y.T @ xx)
    triples = 3 * (diagonal - pairs) - cross
    twos = 2 * (xx * yy.sum() + yy * xx.sum() - 8 * diagonal + 2 * cross + 4 * pairs)
    total = torch.zeros_like(diagonal)
    tuples = (1.0, 2, 2 * pairs), (-2.0, 3, triples), (1.0, 4, twos)
    for sign, size, held in tuples:
        count = 1.0
        for taken in range(size):
            count *= n - taken
        shares = held * (n / count)
        total += sign * (shares - shares.mean() * (size - 1) / size)
    return total


def _defined(value: Tensor, name: str) -> Tensor:
    if value.isnan():
        raise ValueError(
            f"features are the same for all images, or for too few to tell: {name} is "
            "undefined."
        )
    return value
