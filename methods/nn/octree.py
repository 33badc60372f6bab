"""Octrees: the voxels of a shape at all resolutions, with or without the empty siblings of the occupied ones.

P.-S. Wang, Y. Liu, Y.-X. Guo, C.-Y. Sun and X. Tong, O-CNN: Octree-based Convolutional Neural Networks for 3D Shape
Analysis, SIGGRAPH 2017.

A node at depth d is a cell of the grid of 2^d cells to a side. Down to ``full_depth`` all cells are nodes; below, a node
that is occupied has eight children, of which some are empty. O-CNN convolves on the empty children too
(``empty_siblings=True``); without them the octree is a sparse tensor and the convolution a submanifold one, with another
receptive field and other numbers.

An ``Octree`` is the coordinate manager of a ``SparseTensor`` whose stride is 2^(depth - d), so that the layers of
``sparse_conv`` are its layers: a convolution reads zero where there is no node; a strided one, and pooling, give zero at
nodes without children. Rows are in lexicographic order of (item, x, y, z), not in Morton order.
"""

from __future__ import annotations

import torch
from torch import Tensor

from adlbench.benchmark.api import DataError
from adlbench.methods.nn.sparse_coordinates import TorchCoordinates
from adlbench.methods.nn.sparse_tensor import Box, SparseTensor, Voxels, quantise

MAX_DEPTH = 16


class Octree(TorchCoordinates):
    """The nodes of a batch of octrees."""

    def __init__(
        self, leaves: Tensor, batch_size: int, depth: int, full_depth: int = 2, *, empty_siblings: bool = True
    ):
        """``leaves`` int64 [N, 4]: the occupied cells (item, x, y, z) at ``depth``, unique, in lexicographic order.

        Raises DataError for leaves outside of [0, 2^depth), for ``full_depth`` outside of [0, depth], and for batches whose
        cells do not have a number each in 64 bits: 2^15 items at the largest depth.
        """
        if not 0 <= full_depth <= depth <= MAX_DEPTH:
            raise DataError(
                f"an octree of depth {depth}, full to {full_depth}; wanted: 0 <= full <= depth <= {MAX_DEPTH}"
            )
        if batch_size * 8**depth > 2**63:
            raise DataError(
                f"{batch_size:,} octrees of depth {depth}; at most {2**63 // 8**depth:,} are possible: split the batch"
            )
        self.occupied = TorchCoordinates(leaves, batch_size)
        if min(self.occupied._low) < 0 or max(self.occupied._high) >= 2**depth:
            raise DataError(
                f"leaves from {self.occupied._low} to {self.occupied._high} in an octree of {2**depth} cells to a side; "
                "scale the points into [-1, 1)"
            )
        self.depth, self.full_depth, self.empty_siblings = depth, full_depth, empty_siblings
        super().__init__(self._nodes(1, leaves.device) if empty_siblings else leaves, batch_size, checked=True)
        if empty_siblings:  # a full level reaches to the ends of the cube
            self._low, self._high = [0, 0, 0], [2**depth - 1] * 3

    def coordinates(self, stride: int) -> Tensor:
        if not self.empty_siblings:
            return super().coordinates(stride)
        if stride not in self._levels:
            self._levels[stride] = self._nodes(stride, self._levels[1].device)
        return self._levels[stride]

    def _nodes(self, stride: int, device: torch.device) -> Tensor:
        """int64 [N, 4]: all cells of a full level; below, the eight children of each occupied cell above."""
        depth = self.depth - (stride.bit_length() - 1)
        if stride != 1 << (stride.bit_length() - 1) or depth < 0:
            raise DataError(
                f"stride {stride} in an octree of depth {self.depth}; it must be a power of 2 up to 2^depth"
            )
        side, items = 2**depth, self.occupied.batch_size
        box = Box((0, 0, 0), (side, side, side))
        if depth <= self.full_depth:
            keys = torch.arange(items * side**3, device=device)
        else:
            parents = self.occupied.coordinates(2 * stride)
            first = box.encode(parents[:, 0], parents[:, 1:] // stride)
            steps = torch.tensor([(x * side + y) * side + z for x in (0, 1) for y in (0, 1) for z in (0, 1)])
            keys = (first[:, None] + steps.to(device)).flatten().sort().values
        nodes = box.decode(keys)
        nodes[:, 1:] *= stride
        return nodes

    def is_occupied(self, stride: int = 1) -> Tensor:
        """bool [N]: the nodes that hold a point, in the order of the rows."""
        nodes, full = self.coordinates(stride), self.occupied.coordinates(stride)
        box = Box((0, 0, 0), (2**self.depth,) * 3)
        keys, wanted = (box.encode(each[:, 0], each[:, 1:]) for each in (nodes, full))
        occupied = torch.zeros(len(keys), dtype=torch.bool, device=keys.device)
        occupied[torch.searchsorted(keys, wanted)] = True
        return occupied

    def tensor(self, features: Tensor) -> SparseTensor:
        """``features`` [leaves, C] on the occupied leaves, zero on their empty siblings."""
        if not self.empty_siblings:
            return SparseTensor(features, self)
        if len(features) != len(self.occupied.coordinates(1)):
            raise DataError(f"features of {len(features)} leaves of {len(self.occupied.coordinates(1))}")
        nodes = features.new_zeros(len(self.coordinates(1)), features.shape[1])
        return SparseTensor(nodes.index_put((self.is_occupied(),), features), self)


def build_octree(
    points: Tensor, depth: int, full_depth: int = 2, *, empty_siblings: bool = True
) -> tuple[Octree, Voxels]:
    """The octree of clouds ``points`` [B, P, 3] in [-1, 1), and which leaf holds which point.

    The input signal of O-CNN is the average normal of a leaf: ``octree.tensor(normalize(voxels.average(normals)))``.
    Points on the upper border, at 1 exactly, belong to the last cell; so does what float32 cannot tell from 1. A point within
    1e-7 of a cell's border may fall on either side of it.
    """
    cells = 2**depth
    scaled = (points.detach().float() + 1.0) * (cells / 2)
    scaled = torch.where(points <= 1.0, scaled.clamp(max=cells - 0.5), scaled)
    voxels = quantise(scaled, 1.0)
    return Octree(voxels.coordinates, len(points), depth, full_depth, empty_siblings=empty_siblings), voxels
