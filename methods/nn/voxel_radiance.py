"""A sparse grid of densities and spherical harmonics (Plenoxels: Fridovich-Keil, Yu et al. 2022), read between its voxels.

Only voxels that are there are stored: ``links`` says where. A voxel that is not there counts as density 0 and colour
coefficients 0. As in the released code density is interpolated before it is cut off at 0, and a colour is the sum of the
harmonics plus 0.5, at least 0, without an upper bound. Rows and cells are counted in 64 bits. Points and directions are
read in at least float32, as the tables are; values are right to 1e-5 in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adlbench.benchmark.api import DataError
from adlbench.methods.nn import spherical_harmonics


class SparseVoxels(nn.Module):
    """``resolution``^3 voxels over the box ``low`` .. ``high`` [3], values at the voxels' centres."""

    low: Tensor
    high: Tensor
    links: Tensor  # int64 [R, R, R], x first: row of the tables, or -1

    def __init__(self, low: Tensor, high: Tensor, resolution: int, degree: int = 2, density: float = 0.1):
        super().__init__()
        self.resolution, self.degree = resolution, degree
        voxels = resolution**3
        self.register_buffer("low", low)
        self.register_buffer("high", high)
        self.register_buffer("links", torch.arange(voxels).view(resolution, resolution, resolution))
        self.density = nn.Parameter(torch.full((voxels,), density))
        self.harmonics = nn.Parameter(torch.zeros(voxels, 3 * spherical_harmonics.num_bases(degree)))

    def __len__(self) -> int:
        return len(self.density)

    def forward(self, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Points [M, 3] in world units and unit directions [M, 3] -> density [M] and rgb [M, 3], both at least 0.

        Points beyond the box get the value at its border. Raises DataError for points that are not finite.
        """
        points, directions = (x if x.dtype == torch.float64 else x.float() for x in (points, directions))
        rows, weights = self.neighbours(points)
        there = (rows >= 0) * weights
        rows = rows.clamp(min=0)
        if len(self) == 0:
            nothing = self.density.sum() + self.harmonics.sum()  # 0, and a way for the gradient, also to no voxel
            return nothing.expand(len(points)), nothing.add(0.5).expand(len(points), 3)
        density = (self.density[rows] * there).sum(1)
        bag = nn.functional.embedding_bag
        coefficients = bag(rows, self.harmonics, mode="sum", per_sample_weights=there.to(self.harmonics.dtype))
        constant = directions.new_full((1, len(directions)), spherical_harmonics.C0)
        basis = torch.cat([constant, spherical_harmonics.bases(directions.t(), self.degree)])  # [K, M]
        rgb = (coefficients.view(len(points), 3, len(basis)) * basis.t().unsqueeze(1)).sum(-1)
        return density.clamp(min=0), (rgb + 0.5).clamp(min=0)

    def neighbours(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Rows [M, 8] of the voxels around points [M, 3], -1 for those that are not there, and their trilinear weights."""
        if points.device.type == "cpu" and not bool(points.isfinite().all()):
            raise DataError("a point of a ray is not finite; check the camera, near and far")
        place = (points - self.low) / (self.high - self.low) * self.resolution - 0.5
        place = place.clamp(0, self.resolution - 1)
        corner = place.detach().floor().clamp(max=max(self.resolution - 2, 0))
        share = place - corner
        both = torch.stack([1 - share, share], dim=-1)  # [M, 3, 2]
        x, y, z = both.unbind(1)
        weights = (x[:, :, None, None] * y[:, None, :, None] * z[:, None, None, :]).view(-1, 8)
        index = torch.stack([corner, corner + 1], dim=-1).long().clamp(max=self.resolution - 1)
        i, j, k = index.unbind(1)
        rows = self.links[i[:, :, None, None], j[:, None, :, None], k[:, None, None, :]]
        return rows.reshape(-1, 8), weights

    @torch.no_grad()
    def largest_weights(self, points: Tensor, weights: Tensor, out: Tensor | None = None) -> Tensor:
        """[len(self)]: the largest compositing weight [M] that a sample at ``points`` [M, 3] lends a voxel.

        ``out`` is what was found so far, for samples that come in parts.
        """
        rows, shares = self.neighbours(points)
        out = torch.zeros_like(self.density) if out is None else out
        there = rows >= 0
        lent = (weights.unsqueeze(1) * shares).to(out.dtype)
        return out.scatter_reduce_(0, rows[there], lent[there], "amax")

    @torch.no_grad()
    def pruned(self, keep: Tensor, dilation: int = 1) -> SparseVoxels:
        """Only the voxels ``keep`` [len(self)] (by largest weight, say) and those within ``dilation`` of one, along each axis:
        interpolation at a surface needs its neighbours."""
        wanted = torch.zeros_like(self.links, dtype=torch.bool)
        there = self.links >= 0
        wanted[there] = keep[self.links[there]]
        if dilation > 0:
            size = 2 * dilation + 1
            wanted = nn.functional.max_pool3d(wanted.float()[None, None], size, 1, dilation)[0, 0] > 0
        return self._take(there & wanted, self.links)

    @torch.no_grad()
    def refined(self) -> SparseVoxels:
        """Twice the resolution: every voxel becomes eight, with interpolated values."""
        finer = SparseVoxels(self.low, self.high, 1, self.degree)
        finer.resolution = 2 * self.resolution
        there = self.links >= 0
        for axis in range(3):
            there = there.repeat_interleave(2, dim=axis)
        finer.links = _numbered(there)
        centre = (there.nonzero() + 0.5) / finer.resolution * (self.high - self.low) + self.low
        rows, weights = self.neighbours(centre)
        weights = (rows >= 0) * weights
        rows = rows.clamp(min=0)
        finer.density = nn.Parameter((self.density[rows] * weights).sum(1))
        finer.harmonics = nn.Parameter((self.harmonics[rows] * weights.unsqueeze(2)).sum(1))
        return finer

    def total_variation(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Mean over stored voxels ``rows`` [M] (a random few a step) of sqrt(dx^2 + dy^2 + dz^2), equation 3, for the density
        and for the harmonics; differences are to the next voxel along each axis, none at the border or where none is. 0 for
        no voxel."""
        if not len(rows):
            return self.density[rows].sum(), self.harmonics[rows].sum()
        places = (self.links >= 0).nonzero()  # in the order of the rows
        place = places[rows]
        squares: list[Tensor] = []
        for axis in range(3):
            beside = place.clone()
            beside[:, axis] = (beside[:, axis] + 1).clamp(max=self.resolution - 1)
            other = self.links[tuple(beside.t())]
            other = torch.where(other >= 0, other, rows)
            table = torch.cat([self.density.unsqueeze(1), self.harmonics], dim=1)
            squares.append((table[other] - table[rows]).square())
        size = torch.sqrt(torch.stack(squares).sum(0) + 1e-9)  # [M, 1 + K]
        return size[:, 0].mean(), size[:, 1:].mean()

    def _take(self, kept: Tensor, links: Tensor) -> SparseVoxels:
        other = SparseVoxels(self.low, self.high, 1, self.degree)
        other.resolution, other.links = self.resolution, _numbered(kept)
        rows = links[kept]
        other.density = nn.Parameter(self.density[rows].clone())
        other.harmonics = nn.Parameter(self.harmonics[rows].clone())
        return other


def _numbered(there: Tensor) -> Tensor:
    """bool [R, R, R] -> int64: 0, 1, ... where it is true, -1 elsewhere."""
    count = there.flatten().cumsum(0).view(there.shape) - 1
    return torch.where(there, count, -1)
