"""Sparse tensors: features on integer coordinates, of which a batch holds one list.

C. Choy, J. Gwak and S. Savarese, 4D Spatio-Temporal ConvNets: Minkowski Convolutional Neural Networks, CVPR 2019.

A coordinate is (item, x, y, z): the index in the batch first, then the voxel. After layers of total stride s the voxels
keep the scale of the input and are multiples of s. The coordinates of every stride, and which rows meet in which
convolution, belong to the ``CoordinateManager`` that all tensors of one forward pass share.
"""

from __future__ import annotations

import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from adlbench.benchmark.api import AdlbenchError, DataError
from adlbench.methods.nn.precision import at_least_float32

BACKENDS = ("auto", "torch", "minkowski")


# ------------------------------------------------------------------------------------------------------- quantisation
@dataclass(frozen=True)
class Voxels:
    """The occupied voxels of a batch of point clouds, and the way back to the points."""

    coordinates: Tensor  # int64 [V, 4]: (item, x, y, z), unique, in lexicographic order
    point_to_voxel: Tensor  # int64 [B, P]: the row of ``coordinates`` that holds a point
    counts: Tensor  # int64 [V]: points in a voxel

    def average(self, values: Tensor) -> Tensor:
        """The mean of ``values`` [B, P, C] over the points of each voxel: [V, C]. Sums are in at least float32."""
        flat = at_least_float32(values).flatten(0, 1)
        sums = flat.new_zeros(len(self.coordinates), flat.shape[1])
        sums.index_add_(0, self.point_to_voxel.flatten(), flat)
        return (sums / self.counts[:, None]).to(values.dtype)

    def labels(self, point_label: Tensor, ignore_label: int = -100) -> Tensor:
        """The label of each voxel [V]: that of its points [B, P] where they agree, ``ignore_label`` where they do not.

        As MinkowskiEngine does it. Letting the first point win instead teaches the network a random side of each seam.
        """
        flat, index = point_label.flatten(), self.point_to_voxel.flatten()
        lowest = flat.new_full((len(self.coordinates),), torch.iinfo(flat.dtype).max)
        lowest = lowest.scatter_reduce(0, index, flat, "amin")
        highest = torch.full_like(lowest, torch.iinfo(flat.dtype).min).scatter_reduce(0, index, flat, "amax")
        return torch.where(lowest == highest, lowest, ignore_label)

    def to_points(self, values: Tensor) -> Tensor:
        """Every point's value [B, P, ...] from those of the voxels [V, ...]: what a prediction is evaluated on."""
        return values[self.point_to_voxel]


def quantise(points: Tensor, voxel_size: float) -> Voxels:
    """The voxels that hold a point of ``points`` [B, P, 3]: floor(point / voxel_size), in at least float32.

    Raises DataError for points that are not finite, or so far apart that voxels cannot be numbered.
    """
    if points.numel() == 0:
        raise DataError("a batch of point clouds without points; give every item at least one")
    scaled = (at_least_float32(points.detach()) / voxel_size).floor().flatten(0, 1)  # [B * P, 3]
    if compiled(scaled):
        low, high = sparse_numba().extremes(scaled)
    else:
        low, high = torch.stack([scaled.amin(0), scaled.amax(0)]).tolist()
    if not all(math.isfinite(value) for value in low + high):
        raise DataError("a point cloud holds a coordinate that is not finite; remove or repair the point")
    box = Box.around([int(value) for value in low], [int(value) for value in high])
    if max(box.size) >= 2**24 or len(points) * math.prod(box.size) >= 2**62:
        raise DataError(
            f"a batch of point clouds spans {box.size} voxels of {voxel_size}; raise voxel_size or remove outliers"
        )
    if compiled(scaled) and len(points) * math.prod(box.size) <= max(2**18, 32 * len(scaled)):  # counting pays
        coordinates, inverse, counts = sparse_numba().gather_points(scaled, box, len(points))
        return Voxels(coordinates, inverse.view(points.shape[:2]), counts)
    item = torch.arange(len(points), device=points.device).repeat_interleave(points.shape[1])
    keys, inverse, counts = box.encode(item, scaled.long()).unique(return_inverse=True, return_counts=True)
    return Voxels(box.decode(keys), inverse.view(points.shape[:2]), counts)


def compiled(like: Tensor) -> bool:
    """Whether the functions of ``sparse_numba`` can be used for a tensor."""
    return like.device.type == "cpu" and _has_numba()


@cache
def _has_numba() -> bool:
    return find_spec("numba") is not None


@cache
def sparse_numba() -> Any:
    """The module, imported when it is needed: numba takes a second."""
    return importlib.import_module("adlbench.methods.nn.sparse_numba")


@dataclass(frozen=True)
class Box:
    """A box of voxels, in which every voxel of every item has one number that sorts as (item, x, y, z) does."""

    low: tuple[int, int, int]
    size: tuple[int, int, int]

    @staticmethod
    def around(low: Sequence[int], high: Sequence[int], below: int = 0, above: int = 0) -> Box:
        """The box from ``low`` - ``below`` to ``high`` + ``above``, both inside."""
        x, y, z = (value - below for value in low)
        return Box((x, y, z), (high[0] + above + 1 - x, high[1] + above + 1 - y, high[2] + above + 1 - z))

    def encode(self, item: Tensor, voxels: Tensor) -> Tensor:
        """int64 [N] from ``item`` [N] and ``voxels`` [N, 3] inside the box."""
        (x0, y0, z0), (sx, sy, sz) = self.low, self.size
        x, y, z = voxels.unbind(1)
        return ((item * sx + (x - x0)) * sy + (y - y0)) * sz + (z - z0)

    def decode(self, keys: Tensor) -> Tensor:
        """int64 [N, 4], (item, x, y, z)."""
        (x0, y0, z0), (sx, sy, sz) = self.low, self.size
        planes, rows = keys // (sy * sz), keys // sz
        return torch.stack([planes // sx, planes % sx + x0, rows % sy + y0, keys % sz + z0], dim=1)


# ------------------------------------------------------------------------------------------------ coordinates, tensors
class CoordinateManager(ABC):
    """The coordinates of every stride of one batch, and convolution and pooling between them.

    There is one list of coordinates per stride: floor(c / s) * s of the input's. What is computed for one layer is kept for
    all others with the same strides and kernel.
    """

    batch_size: int

    @abstractmethod
    def coordinates(self, stride: int) -> Tensor:
        """int64 [N, 4], (item, x, y, z), in the order of the rows of every tensor with that stride."""

    @abstractmethod
    def convolve(
        self, features: Tensor, kernel: Tensor, stride: int, out_stride: int, kernel_size: int, dilation: int = 1
    ) -> Tensor:
        """``features`` [N, Cin] at ``stride`` convolved with ``kernel`` [K, Cin, Cout] to [M, Cout] at ``out_stride``.

        With ``out_stride`` below ``stride`` the transposed convolution, onto the coordinates that are there already.
        K = kernel_size^3 with index (kz * kernel_size + ky) * kernel_size + kx: x runs fastest. The offsets are centred
        for odd sizes, 0 .. kernel_size - 1 for even ones.
        """

    @abstractmethod
    def pool(self, features: Tensor, stride: int, out_stride: int, kernel_size: int, mode: str) -> Tensor:
        """``mode`` "max", "mean" or "sum" over the voxels present within the kernel: [N, C] to [M, C]."""

    def items(self, stride: int) -> Tensor:
        """int64 [N]: each row's index in the batch."""
        return self.coordinates(stride)[:, 0].contiguous()

    def pool_items(self, features: Tensor, stride: int, mode: str) -> Tensor:
        """``mode`` "max", "mean" or "sum" over all voxels of each item: [N, C] to [B, C]; 0 for an item without voxels."""
        items = self.items(stride)
        if mode == "max":
            counts = torch.bincount(items, minlength=self.batch_size).tolist()
            grouped = features.index_select(0, items.argsort(stable=True))
            nothing = features.new_zeros(features.shape[1])
            return torch.stack([part.max(0).values if len(part) else nothing for part in grouped.split(counts)])
        sums = features.new_zeros(self.batch_size, features.shape[1]).index_add_(0, items, features)
        if mode == "sum":
            return sums
        return sums / torch.bincount(items, minlength=self.batch_size).clamp(min=1)[:, None]


@dataclass(frozen=True)
class SparseTensor:
    """Features at the voxels of one stride."""

    features: Tensor  # [N, C]
    manager: CoordinateManager
    stride: int = 1

    @property
    def coordinates(self) -> Tensor:
        """int64 [N, 4], (item, x, y, z)."""
        return self.manager.coordinates(self.stride)

    def replace(self, features: Tensor) -> SparseTensor:
        """Other features on the same voxels."""
        return SparseTensor(features, self.manager, self.stride)


def cat(*tensors: SparseTensor) -> SparseTensor:
    """Channels side by side, for tensors of the same manager and stride."""
    first = tensors[0]
    if any(other.manager is not first.manager or other.stride != first.stride for other in tensors):
        raise AdlbenchError(f"cat of tensors on different coordinates: strides {[each.stride for each in tensors]}")
    return first.replace(torch.cat([each.features for each in tensors], dim=1))


# -------------------------------------------------------------------------------------------------------------- backend
def resolve_backend(backend: str, device: torch.device | str = "cpu") -> str:
    """ "torch" or "minkowski" for a name in ``BACKENDS``. Raises AdlbenchError when it cannot be had.

    "auto" is MinkowskiEngine on a GPU for which it is installed, and the torch backend otherwise: on the CPU that one is
    faster and gives the same numbers to the bit each time.
    """
    if backend not in BACKENDS:
        raise AdlbenchError(f"backend '{backend}' is not one of {', '.join(BACKENDS)}")
    if backend == "torch" or (backend == "auto" and torch.device(device).type == "cpu"):
        return "torch"
    minkowski = importlib.import_module("adlbench.methods.nn.minkowski")
    reason = minkowski.unavailable(torch.device(device))
    if reason is None:
        return "minkowski"
    if backend == "auto":
        return "torch"
    raise AdlbenchError(f"backend 'minkowski' cannot be used: {reason}; install it, or set backend to 'torch'")


def sparse_tensor(features: Tensor, coordinates: Tensor, batch_size: int, backend: str = "torch") -> SparseTensor:
    """``features`` [N, C] on ``coordinates`` int64 [N, 4], unique and in lexicographic order as ``quantise`` gives them."""
    if resolve_backend(backend, features.device) == "minkowski":
        module = importlib.import_module("adlbench.methods.nn.minkowski")
        return SparseTensor(features, module.MinkowskiCoordinates(coordinates, batch_size))
    module = importlib.import_module("adlbench.methods.nn.sparse_coordinates")
    return SparseTensor(features, module.TorchCoordinates(coordinates, batch_size))
