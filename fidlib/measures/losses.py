"""Numbers from tensors; knows no model and no data set.

Losses (`twl`, `pfl`, `spl`, `pgr`, `lp`) return a scalar tensor with its gradient, so
the number that is reported is the one that training minimises; `pfl` and `spl` are
means of what each image contributes. `pgr` is of Hua et al. (2023), the other four of
Hua & Teoh (2023).
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

BINS = 15
"""Of confidence, for the calibration error."""


def twl(host: Mapping[str, Tensor], marked: Mapping[str, Tensor]) -> Tensor:
    """Total weight loss: squared L2 distance of all parameters, summed.

    Args:
        host: Parameters by name, buffers such as BatchNorm's statistics left out.
        marked: The same names and shapes.

    Raises:
        ValueError: If names or shapes differ.
    """
    if {n: p.shape for n, p in host.items()} != {n: p.shape for n, p in marked.items()}:
        raise ValueError(
            "twl compares parameter by parameter, but the two networks have parameters "
            "of other names or shapes: compare models of one architecture."
        )
    return torch.stack([(marked[n] - p).square().sum() for n, p in host.items()]).sum()


def pfl(host_features: Tensor, features: Tensor) -> Tensor:
    """Penultimate feature loss: mean squared L2 distance of the features.

    Summed over the D features, averaged over the N images.

    Args:
        host_features: `(N, D)`.
        features: `(N, D)` of the compared model: same images, same order.
    """
    return feature_distances(host_features, features).mean()


def spl(host_logits: Tensor, logits: Tensor) -> Tensor:
    """Softmax probability-distribution loss: mean KL(host || model), nats.

    Args:
        host_logits: `(N, K)`.
        logits: `(N, K)` of the compared model: same images, same order.
    """
    return divergences(host_logits, logits).mean()


def lp(host_prototypes: Tensor, prototypes: Tensor) -> Tensor:
    """Prototype loss: squared Frobenius distance of the heads' weights `(K, D)`."""
    _same_shape("prototypes", host_prototypes, prototypes)
    return (prototypes - host_prototypes).square().sum()


def pgr(host_prototypes: Tensor, prototypes: Tensor) -> Tensor:
    """Prototype guided regulariser: L2 distances of the K prototypes, summed.

    Not squared, so its gradient has the same length however near a prototype is; where
    the two are equal it is zero.
    """
    _same_shape("prototypes", host_prototypes, prototypes)
    return torch.linalg.vector_norm(prototypes - host_prototypes, dim=1).sum()


def feature_distances(host_features: Tensor, features: Tensor) -> Tensor:
    """Squared L2 distance of each image's features `(N, D)`: `(N,)`, mean `pfl`."""
    _same_shape("features", host_features, features)
    return (features - host_features).square().sum(1)


def divergences(host_logits: Tensor, logits: Tensor) -> Tensor:
    """KL(host || model) of each image's softmax, nats: `(N,)`, mean `spl`."""
    _same_shape("logits", host_logits, logits)
    log_host, log_model = host_logits.log_softmax(1), logits.log_softmax(1)
    return F.kl_div(log_model, log_host, reduction="none", log_target=True).sum(1)


def jensen_shannon(host_logits: Tensor, logits: Tensor) -> Tensor:
    """Jensen-Shannon divergence of each image's softmax, nats (Lin 1991).

    Mean KL to the mean of the two distributions: symmetric, and log 2 at most, where
    `divergences` may be as large as logits are.

    Args:
        host_logits: `(N, K)`.
        logits: `(N, K)` of the compared model: same images, same order.

    Returns:
        `(N,)` in [0, log 2]; not its square root, which is a distance.
    """
    _same_shape("logits", host_logits, logits)
    log_host, log_model = host_logits.log_softmax(1), logits.log_softmax(1)
    total = torch.zeros_like(log_host)
    for one, other in ((log_host, log_model), (log_model, log_host)):
        # log of own over the mean of both; exactly 0 where the two are equal
        log_ratio = math.log(2) - torch.logaddexp(torch.zeros_like(one), other - one)
        total = total + one.exp() * log_ratio / 2
    return total.sum(1).clamp(min=0)


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """Logit of each image's true class over the best other one: `(N,)`.

    Positive where the image is classified rightly, 0 on the boundary.

    Args:
        logits: `(N, K)`, K > 1.
        labels: `(N,)` class indices.
    """
    true = labels[:, None]
    best = logits.scatter(1, true, -math.inf).max(1).values
    return logits.gather(1, true)[:, 0] - best


def calibration_error(logits: Tensor, labels: Tensor) -> float:
    """Expected calibration error: |confidence - accuracy| in bins (Guo et al. 2017).

    Confidence is the highest softmax probability, in `BINS` bins of equal width, open
    below and closed above; the gap of a bin counts by its share of the images.

    Args:
        logits: `(N, K)`.
        labels: `(N,)` class indices.

    Returns:
        Error in [0, 1]; 0 if confidence and accuracy are equal in every bin.
    """
    confidence, answers = logits.softmax(1).max(1)
    place = (confidence * BINS).ceil().long().clamp(1, BINS) - 1
    gap = confidence - (answers == labels).to(confidence)
    sums = torch.zeros(BINS, dtype=gap.dtype, device=gap.device)
    return sums.index_add(0, place, gap).abs().sum().item() / len(gap)


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Fraction of images whose highest logit is their label's.

    Args:
        logits: `(N, K)`.
        labels: `(N,)` class indices.

    Returns:
        Accuracy in [0, 1].

    Raises:
        ValueError: If the lengths differ or N is zero.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(labels):
        raise ValueError(
            f"logits are {tuple(logits.shape)}, labels {tuple(labels.shape)}; expected "
            "(N, K) and (N,) with N > 0."
        )
    return (logits.argmax(1) == labels).double().mean().item()


def agreement(logits_a: Tensor, logits_b: Tensor) -> float:
    """Fraction of images on which two classifiers name the same class.

    1.0 means the two decide alike on every image; it says nothing about whether
    either is right.

    Args:
        logits_a: `(N, K)` scores of the reference model.
        logits_b: `(N, K)` scores of the compared model: same images, same order.

    Returns:
        Agreement in [0, 1].

    Raises:
        ValueError: If the shapes differ or N is zero.
    """
    _same_shape("logits", logits_a, logits_b)
    return accuracy(logits_b, logits_a.argmax(1))


def _same_shape(what: str, a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape or a.ndim != 2 or not len(a):
        raise ValueError(
            f"{what} are {tuple(a.shape)} and {tuple(b.shape)}; expected two of the "
            "same shape, one row or more."
        )
