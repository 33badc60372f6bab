"""Features stored on grids and read between the grid's points: multiresolution hash grid, dense grid, three planes.

All are modules from points [..., 3] to features [..., F], differentiable in both. Tables are float32; so is what is read
from them under autocast, and bfloat16 points are read as float32 first: 8 bits do not tell the cells of a fine level apart.
In float32 a point's place on a level is right to 1e-7 of the level's points along an axis, and features accordingly.
Rows are counted in 64 bits: tables beyond 2^31 rows are a question of memory only.
"""

from __future__ import annotations

import importlib
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adlbench.benchmark.api import DataError
from adlbench.methods.nn.sparse_tensor import compiled

PRIMES = (1, 2654435761, 805459861)
PLANES = ((0, 1), (0, 2), (1, 2))  # xy, xz, yz


class HashGrid(nn.Module):
    """Multiresolution hash encoding (Müller et al. 2022, section 3) of points in [0, 1]^3, as in tiny-cuda-nn.

    Level l has the scale s = coarsest b^l - 1 and ceil(s) + 1 points along an axis; a point x lies at s x + 0.5. A level
    whose points fit into the table is indexed densely, x fastest; in the others the corner (i, j, k) is stored at
    (i XOR j 2654435761 XOR k 805459861) mod table size. Dense levels have a size that is a multiple of 8 and wrap around.
    Weights are exchangeable with tiny-cuda-nn's, not with nerfstudio's torch version, which hashes every level and has no
    offset of 0.5. Points outside the cube are moved to its border.

    Raises DataError for 2^21 points along an axis and more: their cube has no number in 64 bits. Where a coordinate is not a
    number, neither are the features.
    Gradients are of first order (``embedding_bag`` has no second). On a CPU it is compiled by numba where that is installed.
    """

    def __init__(
        self, levels: int = 16, features: int = 2, table_size: int = 2**19, coarsest: int = 16, finest: int = 2048
    ):
        super().__init__()
        if min(levels, features, table_size, coarsest) < 1 or finest < coarsest:
            raise DataError(
                f"a hash grid of {levels} levels from {coarsest} to {finest} points, {features} features and {table_size} rows; "
                "wanted: at least one of each, and finest no less than coarsest"
            )
        growth = math.exp(math.log(finest / coarsest) / max(1, levels - 1))
        self.scales = [coarsest * growth**level - 1 for level in range(levels)]
        self.resolutions = [math.ceil(scale) + 1 for scale in self.scales]
        if self.resolutions[-1] >= 2**21:
            raise DataError(f"a level of {self.resolutions[-1]:,} points along an axis; fewer than 2^21 are possible")
        self.sizes = [min(-(-(points**3) // 8) * 8, table_size) for points in self.resolutions]
        self.out_features = levels * features
        self.table = nn.Parameter(torch.empty(sum(self.sizes), features).uniform_(-1e-4, 1e-4))

    def forward(self, points: Tensor) -> Tensor:
        """[..., 3] in [0, 1] -> [..., levels * features]"""
        flat = _flat(points).clamp(0, 1)
        if compiled(flat) and flat.dtype == self.table.dtype:
            numba = importlib.import_module("adlbench.methods.nn.hash_grid_numba")
            read: Tensor = numba.read(flat, self.table, self.scales, self.resolutions, self.sizes)
            return read.view(*points.shape[:-1], self.out_features)
        tables = self.table.split(self.sizes)
        levels = [self._read(table, level, flat) for level, table in enumerate(tables)]
        return torch.cat(levels, dim=-1).view(*points.shape[:-1], self.out_features)

    def _read(self, table: Tensor, level: int, points: Tensor) -> Tensor:
        place = points * self.scales[level] + 0.5
        corner = place.detach().floor()
        index = self._index(corner.long(), level, len(table))
        share = place - corner  # [M, 3]
        x, y, z = torch.stack([1 - share, share], dim=-1).unbind(1)  # [M, 2] each
        weights = (x[:, :, None, None] * y[:, None, :, None] * z[:, None, None, :]).view(-1, 8)
        return F.embedding_bag(index, table, mode="sum", per_sample_weights=weights.to(table.dtype))

    def _index(self, corner: Tensor, level: int, size: int) -> Tensor:
        """[M, 3] -> [M, 8]: where the eight points around are stored; z varies fastest among the eight."""
        resolution = self.resolutions[level]
        dense = resolution**3 <= size
        strides = (1, resolution, resolution**2) if dense else PRIMES
        axes = torch.stack([corner, corner + 1], dim=-1) * torch.tensor(strides, device=corner.device)[:, None]
        x, y, z = axes.unbind(1)
        x, y, z = x[:, :, None, None], y[:, None, :, None], z[:, None, None, :]
        index = x + y + z if dense else (x ^ y ^ z) & 0xFFFFFFFF
        return (index % size).view(-1, 8)

    def extra_repr(self) -> str:
        return f"{len(self.sizes)} levels of {self.resolutions[0]} to {self.resolutions[-1]} points, {len(self.table)} rows"


class DenseGrid(nn.Module):
    """One grid of ``resolution``^3 points over [-1, 1]^3, the outermost points on the cube's faces; linear in between.

    Points outside the cube get the value at its border.
    """

    def __init__(self, resolution: int, features: int, init: float = 1e-4):
        super().__init__()
        shape = (1, features, resolution, resolution, resolution)  # z, y, x: the order that grid_sample reads
        self.values = nn.Parameter(torch.empty(shape).uniform_(-init, init))

    def forward(self, points: Tensor) -> Tensor:
        """[..., 3] in [-1, 1] -> [..., features]"""
        flat = _flat(points).to(self.values.dtype)
        read = _sample(self.values, flat.view(1, -1, 1, 1, 3))
        return read.flatten(2)[0].t().reshape(*points.shape[:-1], self.values.shape[1])

    @torch.no_grad()
    def refined(self, resolution: int) -> DenseGrid:
        """The same field on more points."""
        finer = DenseGrid(resolution, self.values.shape[1]).to(self.values)
        size = (resolution,) * 3
        finer.values.copy_(F.interpolate(self.values, size=size, mode="trilinear", align_corners=True))
        return finer


class TriPlane(nn.Module):
    """Features of three planes through [-1, 1]^3, added up (Chan et al. 2022): xy, xz and yz.

    EG3D's released code projects on xy, xz and zx: the same plane twice, and nothing tells yz apart. Here the planes are
    three.
    """

    def __init__(self, resolution: int, features: int, init: float = 0.1):
        super().__init__()
        self.planes = nn.Parameter(init * torch.randn(3, features, resolution, resolution))

    def forward(self, points: Tensor) -> Tensor:
        """[..., 3] in [-1, 1] -> [..., features]"""
        flat = _flat(points).to(self.planes.dtype)
        return read_planes(self.planes[None], flat[None])[0].reshape(*points.shape[:-1], self.planes.shape[1])


def read_planes(planes: Tensor, points: Tensor) -> Tensor:
    """The sum of three planes' features, for planes that a network made.

    Args:
        planes: [B, 3, F, R, R]; plane (a, b) has a along its columns and b along its rows.
        points: [B, M, 3] in [-1, 1].

    Returns:
        [B, M, F], in at least float32: planes that a network made in bfloat16 are read as float32.
    """
    kind = torch.promote_types(torch.promote_types(planes.dtype, points.dtype), torch.float32)
    planes, points = planes.to(kind), points.to(kind)
    batch, _, features = planes.shape[:3]
    places = torch.stack([points[..., list(axes)] for axes in PLANES], dim=1)  # [B, 3, M, 2]
    read = _sample(planes.flatten(0, 1), places.flatten(0, 1).unsqueeze(2))  # [B * 3, F, M, 1]
    return read.view(batch, 3, features, points.shape[1]).sum(1).transpose(1, 2)


def _sample(grid: Tensor, places: Tensor) -> Tensor:
    """``places`` holds x first; the outermost grid points are at -1 and 1. Not in bfloat16: it would move the points."""
    with torch.autocast(grid.device.type, enabled=False):
        return F.grid_sample(grid, places, mode="bilinear", padding_mode="border", align_corners=True)


def _flat(points: Tensor) -> Tensor:
    """[..., 3] -> [M, 3], in at least float32."""
    if points.shape[-1] != 3:
        raise DataError(f"points of shape {tuple(points.shape)}; [..., 3] is wanted")
    flat = points.reshape(-1, 3)
    return flat if flat.dtype == torch.float64 else flat.float()
