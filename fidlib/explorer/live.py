"""Planes through three images in pixel space, from coarse to fine.

Cell (u, v) of S x S is the mix of the corners A, B and C with the weights 1 - b - c,
b = (u + .5) / S and c = (v + .5) / S. Those with u + v < S are in the triangle; of the
others nobody is asked, and they have class 0.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fidlib.measures import boundary

SIDES = (12, 24, 48, 96)
"""Cells along a side, level by level: a finer cell is asked about where coarser ones
differ."""
STEPS = 33
"""L, points along an edge."""


class Planes:
    """What models say on planes, each computed when it is first asked for.

    Args:
        decide: Model -> function of `(M, C, H, W)` pixels that gives `(M, K)` logits.
        pixels: `(R, C, H, W)`, of which planes have their corners.
    """

    def __init__(
        self, decide: Mapping[str, Callable[[Tensor], Tensor]], pixels: Tensor
    ) -> None:
        self._decide, self._pixels = decide, pixels
        self._cells: dict[tuple, np.ndarray] = {}
        self._edges: dict[tuple, np.ndarray] = {}

    def cells(self, name: str, corners: Sequence[int], side: int) -> np.ndarray:
        """`(S, S)` classes that a model names: [v, u] of the cell (u, v)."""
        key = (name, *corners, side)
        if key not in self._cells:
            coarse = None
            if side > SIDES[0]:
                coarse = torch.from_numpy(self.cells(name, corners, side // 2))
            known, asked = refined(coarse, side)
            at = (asked.nonzero().flip(1) + 0.5) / side
            weights = torch.cat([1 - at.sum(1, keepdim=True), at], 1)
            if len(at):
                known[asked] = self._logits(name, corners, weights).argmax(1).cpu()
            self._cells[key] = known.numpy()
        return self._cells[key]

    def edges(self, name: str, corners: Sequence[int]) -> np.ndarray:
        """`(3, L, K)` probabilities from A to B, from B to C and from C to A."""
        key = (name, *corners)
        if key not in self._edges:
            corner = torch.eye(3)
            ends = torch.stack([corner, corner.roll(-1, 0)], 1)
            weights = boundary.segments(ends, steps=STEPS)
            logits = self._logits(name, corners, weights.flatten(0, 1))
            edges = logits.softmax(1).view(3, STEPS, -1)
            self._edges[key] = edges.cpu().numpy()
        return self._edges[key]

    @torch.no_grad()
    def _logits(self, name: str, corners: Sequence[int], weights: Tensor) -> Tensor:
        points = self._pixels[list(corners)].float()
        mixes = torch.einsum("mc,c...->m...", weights.to(points), points)
        return self._decide[name](mixes)


def refined(coarse: Tensor | None, side: int) -> tuple[Tensor, Tensor]:
    """`(S, S)` classes as coarser cells have them, and which cells they leave open."""
    line = torch.arange(side)
    inside = line + line[:, None] < side
    if coarse is None:
        return torch.zeros(side, side, dtype=torch.long), inside
    there = inside[::2, ::2]
    # Classes around a cell and of itself: those outside the triangle say nothing.
    low, high = (
        F.max_pool2d((sign * coarse.float()).where(there, -torch.inf)[None], 3, 1, 1)[0]
        for sign in (-1, 1)
    )
    known, is_open = (
        part.repeat_interleave(2, 0).repeat_interleave(2, 1)
        for part in (coarse, -low != high)
    )
    return known * inside, is_open & inside
