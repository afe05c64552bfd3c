"""Planes and grids, and the labels a given function gives them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

Decide = Callable[[Tensor], Tensor]
"""`(M, ...)` points to `(M, K)` logits."""

Extent = tuple[float, float, float, float]
"""Left, right, bottom and top of the outermost points, as matplotlib wants it."""


@dataclass(frozen=True)
class Regions:
    """Which class a classifier names at every point of a grid."""

    labels: Tensor
    """`(R, R)` int64: row by row from the lowest second coordinate up."""
    margin: Tensor
    """`(R, R)` difference of the two highest logits: 0 on the boundary."""
    extent: Extent
    """Of the grid."""

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
            ValueError: If they are not three, or lie on one line.
        """
        if len(points) != 3:
            raise ValueError(f"{len(points)} points came; a plane goes through three.")
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
        self, decide: Decide, extent: Extent, *, resolution: int = 120
    ) -> Regions:
        """The classes a function names on a part of the plane.

        Args:
            decide: Points of the space `(M, ...)` to logits `(M, K)`.
            extent: The part.
            resolution: R, points a side.
        """
        device = self.origin.device
        return regions(
            lambda xy: decide(self.points(xy.to(device))), extent, resolution
        )


@torch.inference_mode()
def regions(decide: Decide, extent: Extent, resolution: int = 120) -> Regions:
    """The classes a function names on a grid of the plane.

    Args:
        decide: `(M, 2)` coordinates to `(M, K)` logits.
        extent: Left, right, bottom, top.
        resolution: R, points a side.
    """
    left, right, bottom, top = extent
    x = torch.linspace(left, right, resolution)
    y = torch.linspace(bottom, top, resolution)
    xy = torch.cartesian_prod(y, x).flip(1)
    logits = torch.cat([decide(part) for part in xy.split(2000)]).float().cpu()
    best = logits.topk(2, 1).values
    shape = (resolution, resolution)
    margin = (best[:, 0] - best[:, 1]).view(shape)
    return Regions(logits.argmax(1).view(shape), margin, extent)
