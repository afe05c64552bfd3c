"""Planes, grids and segments, and the labels a given function gives them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

Decide = Callable[[Tensor], Tensor]
"""`(M, ...)` points to `(M, K)` logits."""

Extent = tuple[float, float, float, float]
"""Left, right, bottom and top, of the outermost points."""


@dataclass(frozen=True)
class Regions:
    """Which class a classifier names at every point of a grid."""

    labels: Tensor
    """`(R, R)` int64: row by row from the lowest second coordinate up; -1 where nobody
    was asked."""
    extent: Extent
    """The part of the plane that the grid covers."""

    def differs_from(self, other: "Regions") -> Tensor:
        """`(R, R)` bool: where two classifiers on one grid name different classes.

        Raises:
            ValueError: If the grids are not the same.
        """
        if self.extent != other.extent or self.labels.shape != other.labels.shape:
            raise ValueError(
                f"regions cover {self.extent} and {other.extent}; compare two "
                "classifiers on one grid."
            )
        return self.labels != other.labels

    def share_differing(self, other: "Regions") -> float:
        """Share of the points asked about that two classifiers name differently."""
        return self.differs_from(other)[self.labels >= 0].double().mean().item()


@dataclass(frozen=True)
class Plane:
    """A plane in any space, such as the one through three images.

    A point of it is `origin + a * across + b * up`, with orthonormal directions, so
    that distances in the plane are the space's own.
    """

    origin: Tensor
    """The point at (0, 0), of any shape."""
    across: Tensor
    """Unit direction of the first coordinate, of that shape."""
    up: Tensor
    """Unit direction of the second, orthogonal to `across`."""
    anchors: Tensor
    """`(A, 2)` coordinates of the points it goes through."""

    @classmethod
    def through(cls, points: Tensor) -> "Plane":
        """The plane through `(3, ...)` points; the first is its origin.

        Raises:
            ValueError: If they are not three, not finite, or lie on one line.
        """
        if len(points) != 3:
            raise ValueError(f"{len(points)} points came; a plane goes through three.")
        if not points.isfinite().all():
            raise ValueError("a point is not finite: choose three that are.")
        shape, flat = points.shape[1:], points.float().flatten(1)
        sides = flat - flat[0]
        across = F.normalize(sides[1], dim=0)
        rise = sides[2] - sides[2] @ across * across
        if rise.norm() <= 1e-4 * sides[2].norm() or not sides[1].any():
            raise ValueError(
                "the three points lie on one line, which is in many planes: choose "
                "three that differ."
            )
        up = F.normalize(rise, dim=0)
        anchors = sides @ torch.stack([across, up]).T
        return cls(points[0].float(), across.view(shape), up.view(shape), anchors)

    @classmethod
    def whole(cls) -> "Plane":
        """Two-dimensional space itself, with its own coordinates."""
        across, up = torch.eye(2)
        return cls(torch.zeros(2), across, up, torch.zeros(1, 2))

    def to(self, device: torch.device) -> "Plane":
        """The same plane on `device`, where its regions are then computed."""
        parts = (self.origin, self.across, self.up, self.anchors)
        return Plane(*(part.to(device) for part in parts))

    def points(self, xy: Tensor) -> Tensor:
        """`(M, ...)` points of the space at `(M, 2)` coordinates of the plane."""
        directions = torch.stack([self.across.flatten(), self.up.flatten()])
        return self.origin + (xy @ directions).view(-1, *self.origin.shape)

    def locate(self, points: Tensor) -> Tensor:
        """`(M, 2)` coordinates of the feet of `(M, ...)` points on the plane."""
        directions = torch.stack([self.across.flatten(), self.up.flatten()])
        return (points - self.origin).flatten(1) @ directions.T

    def extent(self, *, border: float = 0.3) -> Extent:
        """A square around the anchors, with room of `border` times their spread."""
        low, high = self.anchors.min(0).values, self.anchors.max(0).values
        half = float((high - low).max()) * (0.5 + border)
        x, y = ((low + high) / 2).tolist()
        return x - half, x + half, y - half, y + half

    def regions(
        self,
        decide: Decide,
        extent: Extent,
        *,
        resolution: int = 120,
        triangle: bool = False,
    ) -> Regions:
        """The classes a function names on a part of the plane.

        Args:
            decide: Points of the space `(M, ...)` to logits `(M, K)`.
            extent: The part.
            resolution: R, points a side.
            triangle: Ask in the triangle of the three anchors alone, where every point
                is a mixture of them.
        """
        xy = _grid(extent, resolution).to(self.origin.device)
        asked = self._inside(xy) if triangle else torch.ones_like(xy[:, 0]).bool()
        labels = torch.full((len(xy),), -1)
        with torch.no_grad():
            answers = decide(self.points(xy[asked])).argmax(1)
        labels[asked.cpu()] = answers.cpu()
        return Regions(labels.view(resolution, resolution), extent)

    def _inside(self, xy: Tensor) -> Tensor:
        """`(M,)` bool: which of `(M, 2)` coordinates lie in the anchors' triangle."""
        first, *others = self.anchors
        sides = torch.stack([other - first for other in others], 1)
        shares = torch.linalg.solve(sides, (xy - first).T)
        # A point on a side counts, whatever rounding says.
        return (shares >= -1e-6).all(0) & (shares.sum(0) <= 1 + 1e-6)


def three_right(labels: Tensor, logits: Tensor) -> list[int]:
    """Numbers of three images that are answered rightly, of three classes if they can.

    Args:
        labels: `(N,)` classes of the images.
        logits: `(N, K)` of a classifier.
    """
    right = (logits.argmax(1) == labels).nonzero()[:, 0].tolist()
    first: dict[int, int] = {}
    for number, label in zip(right, labels[right].tolist(), strict=True):
        first.setdefault(label, number)
    one_each = [first[label] for label in sorted(first)]
    return [*one_each, *(n for n in right if n not in one_each)][:3]


def class_tuples(
    labels: Tensor, size: int, *, count: int, generator: torch.Generator
) -> Tensor:
    """Random images of different classes, such as the corners of planes.

    The classes take turns at the first place, so that each has as many; where there are
    more classes than tuples, those drawn have one.

    Args:
        labels: `(N,)` class indices.
        size: T, images a tuple.
        count: Tuples.
        generator: Source of the draws (on the CPU).

    Returns:
        `(count, T)` indices of images; none where there are fewer than T classes.
    """
    present = labels.cpu().unique()
    if len(present) > count:
        present = present[torch.randperm(len(present), generator=generator)]
    count = count if len(present) >= size else 0
    rows = torch.empty(count, size, dtype=torch.long)
    for place, row in enumerate(rows):
        first = place % len(present)
        order = torch.randperm(len(present) - 1, generator=generator)[: size - 1]
        others = order + (order >= first)
        for column, label in enumerate(present[[first, *others.tolist()]]):
            members = (labels.cpu() == label).nonzero()[:, 0]
            draw = torch.randint(len(members), (), generator=generator)
            row[column] = members[draw]
    return rows


def triangles(corners: Tensor, *, steps: int = 9) -> Tensor:
    """Points in the triangles of triples of images, each a mixture of the three.

    Args:
        corners: `(P, 3, ...)`.
        steps: Parts of a side.

    Returns:
        `(P, Q, ...)` with Q = (steps + 1) (steps + 2) / 2, evenly spaced.
    """
    places = torch.arange(steps + 1)
    mixtures = torch.cartesian_prod(places, places)
    mixtures = mixtures[mixtures.sum(1) <= steps]
    first = steps - mixtures.sum(1, keepdim=True)
    shares = torch.cat([first, mixtures], 1).to(corners) / steps
    mixed = torch.einsum("qc,pc...->pq...", shares, corners)
    # Rounding would put a pixel where all three are white outside of [0, 1].
    return mixed.clamp(*corners.aminmax()) if len(corners) else mixed


def segments(ends: Tensor, *, steps: int = 16) -> Tensor:
    """Points on the straight lines between pairs of images, both ends included.

    Args:
        ends: `(S, 2, ...)` first and last points.
        steps: T, points on each, evenly spaced.

    Returns:
        `(S, T, ...)`.
    """
    first, last = ends.float().unbind(1)
    along = torch.linspace(0, 1, steps, device=ends.device)
    return torch.lerp(
        first[:, None], last[:, None], along.view(1, -1, *[1] * (first.ndim - 1))
    )


def crossings(margins: Tensor) -> Tensor:
    """How far along segments the boundary is first crossed.

    Between the last point before it and the first one behind, the margin is taken as
    linear.

    Args:
        margins: `(S, T)` of the class named at the start over the best other one, at
            points evenly spaced.

    Returns:
        `(S,)` shares of the length in [0, 1]; 1 where the class stays to the end.
    """
    across = margins < 0
    behind = across.int().argmax(1).clamp(min=1)[:, None]
    before, after = margins.gather(1, behind - 1), margins.gather(1, behind)
    share = (behind - 1 + before / (before - after)) / (margins.shape[1] - 1)
    return torch.where(across.any(1), share[:, 0], torch.ones_like(share[:, 0]))


def _grid(extent: Extent, resolution: int) -> Tensor:
    """`(R * R, 2)` coordinates, row by row from the lowest second one up."""
    left, right, bottom, top = extent
    x = torch.linspace(left, right, resolution)
    y = torch.linspace(bottom, top, resolution)
    return torch.cartesian_prod(y, x).flip(1)
