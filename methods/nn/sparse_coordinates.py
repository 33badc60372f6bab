"""Sparse convolution in plain torch: which voxels meet at which tap of a kernel, and the product over them.

Looking up a voxel is one read in a table over the bounding box where that is small, a binary search in sorted keys where
it is not. The convolution then gathers the rows of one tap into a small buffer that stays in the cache, multiplies them by
the tap's matrix into a product buffer, and in the end sums, for each voxel, the products that belong to it. That sum has
one fixed order: no atomics, so that the result is the same to the bit each time, on a GPU too.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from adlbench.benchmark.api import AdlbenchError, DataError
from adlbench.methods.nn.sparse_tensor import Box, CoordinateManager

_TABLE_CELLS, _TABLE_CELLS_PER_VOXEL = 2**20, 128  # filling a table of so many costs less than 27 binary searches


# ---------------------------------------------------------------------------------------------------------- kernel maps
@dataclass
class KernelMap:
    """All pairs of voxels (source, target) that a kernel connects, tap after tap. The tap ``centre`` is left out: where it
    is not None, it maps every voxel to itself."""

    taps: list[int]  # which matrix of the kernel each run of pairs is for
    sizes: list[int]  # pairs in each run
    sources: Tensor  # int32 [pairs], input rows
    targets: Tensor  # int32 [pairs], output rows
    num_sources: int
    num_targets: int
    order: Tensor  # int32 [pairs]: the pairs sorted by target
    bounds: Tensor  # int32 [num_targets + 1]: where in ``order`` each target begins
    centre: int | None
    mirror: int | None  # where the adjoint is the same map with the kernel turned: the sum of opposite taps' indices
    _adjoint: KernelMap | None = None

    @property
    def adjoint(self) -> KernelMap:
        """The same pairs from targets to sources: of the gradient, and of the transposed convolution."""
        if self._adjoint is None:
            taps, sources, targets, order, bounds = self.taps, self.targets, self.sources, self.order, self.bounds
            if self.mirror is not None:  # if j is at offset o of i, then i is at -o of j
                taps, sources, targets = [self.mirror - tap for tap in taps], self.sources, self.targets
            else:
                order, bounds = self._sorted_by_source()
            back = KernelMap(
                taps, self.sizes, sources, targets, self.num_targets, self.num_sources, order, bounds, self.centre,
                self.mirror, self,
            )  # fmt: skip
            self._adjoint = back
        return self._adjoint

    def _sorted_by_source(self) -> tuple[Tensor, Tensor]:
        runs, device = len(self.taps), self.sources.device
        run = torch.arange(runs, device=device).repeat_interleave(torch.tensor(self.sizes, device=device))
        return _sort_pairs(run * self.num_sources + self.sources, runs, self.num_sources)

    def sum_products(self, products: Tensor) -> Tensor:
        """Of one row per pair [pairs, C] those of each target: [num_targets, C]."""
        if not self.taps:
            return products.new_zeros(self.num_targets, products.shape[1])
        return functional.embedding_bag(self.order, products, self.bounds, mode="sum", include_last_offset=True)

    def chunks(self, rows: int) -> Iterator[tuple[slice, slice]]:
        """Runs that together have about ``rows`` pairs: (which runs, which pairs)."""
        first, start, count = 0, 0, 0
        for index, size in enumerate(self.sizes):
            if count and count + size > rows:
                yield slice(first, index), slice(start, start + count)
                first, start, count = index, start + count, 0
            count += size
        if count:
            yield slice(first, len(self.sizes)), slice(start, start + count)


def kernel_offsets(kernel_size: int, dilation: int = 1) -> Tensor:
    """int64 [K, 3], (x, y, z) with x fastest: centred for odd sizes, 0 .. kernel_size - 1 for even ones."""
    start = -(kernel_size // 2) if kernel_size % 2 else 0
    steps = torch.arange(start, start + kernel_size) * dilation
    z, y, x = torch.meshgrid(steps, steps, steps, indexing="ij")
    return torch.stack([x, y, z], dim=-1).view(-1, 3)


def map_from_neighbours(neighbours: Tensor, num_sources: int, *, symmetric: bool) -> KernelMap:
    """``neighbours`` int32 [K, M]: the source that each tap reads for each target, -1 for none.

    ``symmetric`` says that sources and targets are the same voxels and the offsets are centred.
    """
    volume, num_targets = neighbours.shape
    centre = volume // 2 if symmetric else None
    if centre is not None:
        neighbours[centre] = -1  # the identity needs no gather
    flat = neighbours.flatten()
    where = _nonzero(flat >= 0)
    edges = torch.searchsorted(where, torch.arange(volume + 1, device=where.device) * num_targets).tolist()
    sizes = [end - start for start, end in itertools.pairwise(edges)]
    order, bounds = _sort_pairs(where, volume, num_targets)
    return KernelMap(
        taps=[tap for tap, size in enumerate(sizes) if size],
        sizes=[size for size in sizes if size],
        sources=flat.index_select(0, where),
        targets=(where % num_targets).int(),
        num_sources=num_sources,
        num_targets=num_targets,
        order=order,
        bounds=bounds,
        centre=centre,
        mirror=volume - 1 if symmetric else None,
    )


def _sort_pairs(cells: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Pairs lie in ``cells`` [pairs] of a table [rows, columns]: the pairs sorted by column (then row), and where each
    column begins [columns + 1]. A transposition instead of a sort."""
    table = torch.full((rows * columns,), -1, dtype=torch.int32, device=cells.device)
    table.scatter_(0, cells, torch.arange(len(cells), dtype=torch.int32, device=cells.device))
    counts = (table.view(rows, columns) >= 0).sum(0)
    turned = table.view(rows, columns).t().flatten()
    return turned.index_select(0, _nonzero(turned >= 0)), functional.pad(counts.cumsum(0), (1, 0)).int()


def _nonzero(mask: Tensor) -> Tensor:
    """int64 indices of a mask [N]; NumPy's is several times faster on the CPU."""
    if mask.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.nonzero()[:, 0]


# ---------------------------------------------------------------------------------------------------------- coordinates
class TorchCoordinates(CoordinateManager):
    """Coordinates, kernel maps and convolution in torch, on any device."""

    def __init__(self, coordinates: Tensor, batch_size: int):
        """``coordinates`` int64 [N, 4], (item, x, y, z), unique and in lexicographic order."""
        self.batch_size = batch_size
        if len(coordinates) == 0:
            raise DataError("a sparse tensor without voxels; give every item at least one point")
        low, high = torch.stack([coordinates.amin(0), coordinates.amax(0)]).tolist()
        if low[0] < 0 or high[0] >= batch_size:
            raise DataError(f"coordinates name items {low[0]}..{high[0]} in a batch of {batch_size}")
        self._low, self._high = low[1:], high[1:]
        self._levels: dict[int, Tensor] = {1: coordinates}
        self._maps: dict[tuple[int, int, int, int], KernelMap] = {}
        if not bool((self._keys(1, self._box(1)).diff() > 0).all()):
            raise DataError("coordinates must be unique and in lexicographic order; make them with `quantise`")

    def coordinates(self, stride: int) -> Tensor:
        if stride not in self._levels:
            # floor(floor(c / a) / b) = floor(c / ab), so that any finer level whose stride divides this one will do
            finer = max(known for known in self._levels if stride % known == 0)
            item, voxels = self._levels[finer].split([1, 3], dim=1)
            box = self._box(stride)
            cells = voxels.div(stride, rounding_mode="floor")
            coordinates = box.decode(torch.unique(box.encode(item[:, 0], cells)))
            coordinates[:, 1:] *= stride
            self._levels[stride] = coordinates
        return self._levels[stride]

    def _box(self, stride: int, below: int = 0, above: int = 0) -> Box:
        """Around all voxels in units of ``stride``, and so many more on either side."""
        low, high = ([value // stride for value in corner] for corner in (self._low, self._high))
        return Box.around(low, high, below, above)

    def _keys(self, stride: int, box: Box, unit: int | None = None) -> Tensor:
        """The voxels of ``stride`` numbered in ``box``, which counts in units of ``unit`` (of ``stride`` by default)."""
        coordinates, unit = self.coordinates(stride), unit or stride
        voxels = coordinates[:, 1:]
        return box.encode(coordinates[:, 0], voxels.div(unit, rounding_mode="floor") if unit > 1 else voxels)

    def neighbours(self, stride: int, out_stride: int, kernel_size: int, dilation: int = 1) -> Tensor:
        """int32 [K, M]: for each tap and output voxel the input row there, -1 where there is no voxel."""
        offsets = kernel_offsets(kernel_size, dilation)
        # wide enough that no tap of any output voxel leaves the box and comes back in the next row
        below = out_stride // stride - 1 - min(0, int(offsets.min()))
        box = self._box(stride, below, max(0, int(offsets.max())))
        keys, queries = self._keys(stride, box), self._keys(out_stride, box, stride)
        steps = ((offsets[:, 0] * box.size[1] + offsets[:, 1]) * box.size[2] + offsets[:, 2]).to(keys.device)
        wanted = (queries[None, :] + steps[:, None]).flatten()
        cells = self.batch_size * math.prod(box.size)
        if cells <= max(_TABLE_CELLS, _TABLE_CELLS_PER_VOXEL * len(keys)):
            table = torch.full((cells,), -1, dtype=torch.int32, device=keys.device)
            table.scatter_(0, keys, torch.arange(len(keys), dtype=torch.int32, device=keys.device))
            found = table.index_select(0, wanted)
        else:
            place = torch.searchsorted(keys, wanted).clamp_(max=len(keys) - 1)
            found = torch.where(keys[place] == wanted, place, -1).int()
        return found.view(len(offsets), -1)

    def kernel_map(self, stride: int, out_stride: int, kernel_size: int, dilation: int = 1) -> KernelMap:
        """Made once for all layers with these strides and this kernel; the transposed ones use its adjoint."""
        if out_stride < stride:
            if out_stride not in self._levels:
                raise AdlbenchError(
                    f"a transposed convolution restores coordinates, and none of stride {out_stride} were made; "
                    f"strides present: {sorted(self._levels)}"
                )
            return self.kernel_map(out_stride, stride, kernel_size, dilation).adjoint
        if out_stride % stride:
            raise AdlbenchError(f"stride {out_stride} of the output is no multiple of that of the input, {stride}")
        key = (stride, out_stride, kernel_size, dilation)
        if key not in self._maps:
            neighbours = self.neighbours(stride, out_stride, kernel_size, dilation)
            symmetric = stride == out_stride and kernel_size % 2 == 1
            self._maps[key] = map_from_neighbours(neighbours, len(self.coordinates(stride)), symmetric=symmetric)
        return self._maps[key]

    def convolve(
        self, features: Tensor, kernel: Tensor, stride: int, out_stride: int, kernel_size: int, dilation: int = 1
    ) -> Tensor:
        if torch.is_autocast_enabled(features.device.type):
            dtype = torch.get_autocast_dtype(features.device.type)
            features, kernel = features.to(dtype), kernel.to(dtype)
        if kernel_size == 1 and stride == out_stride:
            return features @ kernel[0]
        kernel_map = self.kernel_map(stride, out_stride, kernel_size, dilation)
        return _Convolution.apply(features, kernel, kernel_map)  # type: ignore[no-any-return]

    def pool(self, features: Tensor, stride: int, out_stride: int, kernel_size: int, mode: str) -> Tensor:
        if mode == "max":
            return _MaxPool.apply(features, self.neighbours(stride, out_stride, kernel_size))  # type: ignore[no-any-return]
        kernel_map = self.kernel_map(stride, out_stride, kernel_size)
        sums: Tensor = _SumPool.apply(features, kernel_map)
        if mode == "sum":
            return sums
        return sums / (kernel_map.bounds.diff() + (kernel_map.centre is not None)).clamp(min=1)[:, None]


# ---------------------------------------------------------------------------------------------------------- convolution
class _Workspace(threading.local):
    """Buffers kept between calls: on the CPU, fresh memory of many megabytes costs more than the product it is for."""

    largest = 2**24  # numbers; beyond that nothing is kept

    def __init__(self) -> None:
        self.buffers: dict[tuple[str, torch.dtype], Tensor] = {}

    def take(self, name: str, rows: int, columns: int, like: Tensor) -> Tensor:
        """Uninitialised [rows, columns] with the type and device of ``like``, valid until the next call with ``name``."""
        count = rows * columns
        if like.device.type != "cpu" or count > self.largest:
            return like.new_empty(rows, columns)
        buffer = self.buffers.get((name, like.dtype))
        if buffer is None or buffer.numel() < count:
            buffer = self.buffers[name, like.dtype] = like.new_empty(count)
        return buffer[:count].view(rows, columns)

    def rows_of(self, name: str, values: Tensor, index: Tensor) -> Tensor:
        """``values[index]`` in a buffer."""
        return torch.index_select(values, 0, index, out=self.take(name, len(index), values.shape[1], values))


_workspace = _Workspace()
_CHUNK = 2**18  # numbers gathered at a time: 1 MiB, which a core's cache holds


class _Convolution(torch.autograd.Function):
    """out[t] = sum over the pairs (s, t) of each tap k of features[s] @ kernel[k]. Keeps no gathered copies."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, kernel: Tensor, kernel_map: KernelMap) -> Tensor:
        features, matrices = features.contiguous(), kernel.unbind(0)
        products = _workspace.take("products", len(kernel_map.sources), kernel.shape[2], features)
        for runs, pairs in kernel_map.chunks(_CHUNK // features.shape[1]):
            sizes = kernel_map.sizes[runs]
            gathered = _workspace.rows_of("gathered", features, kernel_map.sources[pairs]).split(sizes)
            results = products[pairs].split(sizes)
            for tap, rows, result in zip(kernel_map.taps[runs], gathered, results, strict=True):
                torch.mm(rows, matrices[tap], out=result)
        out = kernel_map.sum_products(products)
        if kernel_map.centre is not None:
            out.addmm_(features, matrices[kernel_map.centre])
        ctx.save_for_backward(features, kernel)
        ctx.kernel_map = kernel_map
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        features, kernel = ctx.saved_tensors
        back: KernelMap = ctx.kernel_map.adjoint  # its sources are rows of the output, its targets rows of the input
        gradient, transposed = gradient.contiguous(), kernel.transpose(1, 2).unbind(0)
        want_features, want_kernel = ctx.needs_input_grad[:2]
        to_kernel = _empty_but(kernel, {*back.taps, back.centre}) if want_kernel else None
        to_matrices = to_kernel.unbind(0) if to_kernel is not None else ()
        products = _workspace.take("products", len(back.sources) if want_features else 0, kernel.shape[1], gradient)
        for runs, pairs in back.chunks(_CHUNK // max(kernel.shape[1:])):
            taps, sizes = back.taps[runs], back.sizes[runs]
            gathered = _workspace.rows_of("gathered", gradient, back.sources[pairs]).split(sizes)
            if to_matrices:
                inputs = _workspace.rows_of("inputs", features, back.targets[pairs]).split(sizes)
                for tap, rows, row_inputs in zip(taps, gathered, inputs, strict=True):
                    torch.mm(row_inputs.t(), rows, out=to_matrices[tap])
            if want_features:
                for tap, rows, result in zip(taps, gathered, products[pairs].split(sizes), strict=True):
                    torch.mm(rows, transposed[tap], out=result)
        to_features = back.sum_products(products) if want_features else None
        if back.centre is not None:
            if to_matrices:
                torch.mm(features.t(), gradient, out=to_matrices[back.centre])
            if to_features is not None:
                to_features.addmm_(gradient, transposed[back.centre])
        return to_features, to_kernel, None


def _empty_but(kernel: Tensor, written: set[int | None]) -> Tensor:
    """Like ``kernel``, zero at the taps that are not going to be written."""
    result = torch.empty_like(kernel)
    for tap in set(range(len(kernel))) - written:
        result[tap].zero_()
    return result


# -------------------------------------------------------------------------------------------------------------- pooling
class _SumPool(torch.autograd.Function):
    """out[t] = sum of features[s] over all pairs (s, t)."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, kernel_map: KernelMap) -> Tensor:
        ctx.kernel_map = kernel_map
        return _sum_over_pairs(features, kernel_map)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _sum_over_pairs(gradient, ctx.kernel_map.adjoint), None


def _sum_over_pairs(features: Tensor, kernel_map: KernelMap) -> Tensor:
    rows = kernel_map.sources.index_select(0, kernel_map.order)
    out = functional.embedding_bag(rows, features.contiguous(), kernel_map.bounds, mode="sum", include_last_offset=True)
    return out if kernel_map.centre is None else out.add_(features)


class _MaxPool(torch.autograd.Function):
    """out[t] = maximum of features[s] over the neighbours s that are there; the gradient goes to the first maximum."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, neighbours: Tensor) -> Tensor:
        volume, num_targets = neighbours.shape
        absent = len(features)
        rows = torch.where(neighbours < 0, absent, neighbours)
        padded = torch.cat([features, features.new_full((1, features.shape[1]), -torch.inf)])
        around = padded.index_select(0, rows.flatten()).view(volume, num_targets, -1)
        values, tap = around.max(0)
        ctx.save_for_backward(rows.t().long().gather(1, tap))  # [M, C]: the row that each maximum came from
        ctx.num_sources = absent
        return values

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        out = gradient.new_zeros(ctx.num_sources + 1, gradient.shape[1])
        return out.scatter_add_(0, rows, gradient)[:-1], None
