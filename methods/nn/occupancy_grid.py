"""Which parts of a box can hold density, so that the rest need not be asked (Müller et al. 2022, appendix C; nerfacc).

Samples along rays are then packed: one list of M samples for all rays, ``ray`` [M] says whose each is, ascending. What is
done with them is in ``volume_rendering``. Cells and samples are counted in 64 bits.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from adlbench.benchmark.api import DataError
from adlbench.methods.nn.rays import Rays
from adlbench.methods.nn.sparse_tensor import compiled


class Samples(NamedTuple):
    ray: Tensor  # [M] int64, ascending
    depths: Tensor  # [M] z-depths, ascending within a ray
    lengths: Tensor  # [M] z-depth of the interval around each sample, to be multiplied by |direction|


class OccupancyGrid(nn.Module):
    """A grid of cells over the box ``low`` .. ``high``, world units. All of them are occupied before the first update."""

    low: Tensor
    high: Tensor
    density: Tensor  # [R^3] the largest density met in a cell, decaying; x slowest
    occupied: Tensor  # [R^3] bool

    def __init__(self, low: Tensor, high: Tensor, resolution: int):
        super().__init__()
        if resolution < 1 or not bool((high > low).all()):
            raise DataError(
                f"a grid of {resolution} cells to a side from {low.tolist()} to {high.tolist()}; it has no volume"
            )
        self.resolution = resolution
        self.register_buffer("low", low)
        self.register_buffer("high", high)
        self.register_buffer("density", torch.zeros(resolution**3))
        self.register_buffer("occupied", torch.ones(resolution**3, dtype=torch.bool))

    def contains(self, points: Tensor) -> Tensor:
        """Points [..., 3] -> bool [...]: in an occupied cell. A cell holds its lower border; nothing is outside the box."""
        inside, cell = self.cells(points)
        return inside & self.occupied[cell]

    def cells(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Whether points [..., 3] are in the box, bool [...], and the number of their cell, int64 [...]."""
        place = (points - self.low) / (self.high - self.low) * self.resolution
        inside = ((place >= 0) & (place < self.resolution)).all(-1)
        x, y, z = place.nan_to_num(0.0).clamp(0, self.resolution - 1).long().unbind(-1)
        return inside, (x * self.resolution + y) * self.resolution + z

    @torch.no_grad()
    def update(
        self,
        density_at: Callable[[Tensor], Tensor],
        threshold: float,
        generator: torch.Generator,
        share: float = 1.0,
        decay: float = 0.95,
    ) -> None:
        """Look at a random point of a random ``share`` of the cells: [M, 3] -> [M]. What was known is worth ``decay`` of itself.

        A cell counts as occupied above ``threshold``, or above the mean of all where that is lower: a field that is faint
        everywhere must not vanish altogether (nerfacc). A density that is not a number counts as 0: one such point would
        empty the whole grid.
        """
        device, cells = self.density.device, len(self.density)
        if share < 1:
            chosen = torch.randint(cells, (max(1, round(share * cells)),), generator=generator, device=device)
        else:
            chosen = torch.arange(cells, device=device)
        r = self.resolution
        corner = torch.stack([chosen // (r * r), chosen // r % r, chosen % r], dim=-1)
        point = corner + torch.rand(len(chosen), 3, generator=generator, device=device)
        density = density_at(self.low + point / r * (self.high - self.low)).float().nan_to_num()
        self.density.mul_(decay)
        # A cell may be chosen twice: the larger value counts.
        self.density.scatter_reduce_(0, chosen, density, "amax")
        self.occupied.copy_(self.density > self.density.mean().clamp(max=threshold))

    @torch.no_grad()
    def march(
        self, rays: Rays, near: Tensor, far: Tensor, step: Tensor, generator: torch.Generator | None = None
    ) -> Samples:
        """One sample in each interval of z-depth ``step`` [R] from near to far [R] that is in an occupied cell.

        With a generator all samples of a ray are shifted by one random part of a step; without, they are in the middle of
        their intervals. The last interval is cut off at ``far``, and left out if its sample is beyond that. A ray with
        far <= near has none. In at least float32. Raises DataError for steps and bounds that are not finite, or no step.
        """
        rays = Rays(*(_at_least_float32(x) for x in rays))
        near, far, step = (_at_least_float32(x) for x in (near, far, step))
        step = torch.where(far > near, step, 1.0)  # 0 / 0 steps to where nothing is wanted
        if not bool((near.isfinite() & far.isfinite() & step.isfinite() & (step > 0)).all()):
            raise DataError(
                "a ray is marched along with no step, or without an end; near and far must be finite, step positive"
            )
        shift = torch.full_like(near, 0.5)
        if generator is not None:
            shift = torch.rand(len(near), generator=generator, device=near.device)
        if compiled(near):
            box = (self.low, self.high - self.low, self.occupied.view(*[self.resolution] * 3))
            return Samples(*occupancy_numba().march(*rays, torch.stack([near, far, step, shift]), *box))
        most = int(((far - near) / step).clamp(min=0).ceil().max()) if len(near) else 0
        starts = near[:, None] + torch.arange(most, device=near.device) * step[:, None]
        depths = starts + (shift * step)[:, None]
        ray, place = ((depths < far[:, None]) & self.contains(rays.at(depths))).nonzero().unbind(1)
        lengths = torch.minimum(step[:, None], far[:, None] - starts)
        return Samples(ray, depths[ray, place], lengths[ray, place])


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


@cache
def occupancy_numba() -> Any:
    """The module, imported when it is needed: numba takes a second."""
    return importlib.import_module("adlbench.methods.nn.occupancy_numba")
