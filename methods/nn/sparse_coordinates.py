"""Sparse convolution in plain torch: which voxels meet at which tap of a kernel, and the product over them.

Looking up a voxel is one read in a table over the bounding box where that is small, a binary search in sorted keys where
it is not. On a CPU with numba the products are ``sparse_product_numba``'s, in bfloat16 ``sparse_amx_numba``'s, and maps
``sparse_numba``'s. Elsewhere the convolution has two ways, and takes the one that costs less for the map and the channels:

- by table: the rows that all taps of a few hundred outputs read are gathered side by side, zeros where there is no voxel,
  into a buffer that stays in the cache, and multiplied by the whole kernel at once. Backward, the gathered gradients serve
  both gradients. Several times faster where at least a third of the taps find a voxel, as on any surface.
- by pairs: the rows of one tap are gathered and multiplied by the tap's matrix, and in the end the products that belong
  to a voxel are summed. Nothing is computed for absent voxels.

All sum in one fixed order: no atomics, so that the result is the same to the bit each time, on a GPU too.
"""

from __future__ import annotations

import importlib
import itertools
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from adlbench.benchmark.api import AdlbenchError, DataError
from adlbench.methods.nn.sparse_tensor import Box, CoordinateManager, compiled, sparse_numba

_TABLE_CELLS, _TABLE_CELLS_PER_VOXEL = 2**20, 128  # filling a table of so many costs less than 27 binary searches


@cache
def products() -> Any:
    """The module ``sparse_product_numba``, imported when it is needed: numba takes a second."""
    return importlib.import_module("adlbench.methods.nn.sparse_product_numba")


@cache
def tile_products() -> Any:
    """The module ``sparse_amx_numba``, which does the same in bfloat16 where the CPU has a tile unit; else None."""
    unit = importlib.import_module("adlbench.methods.nn.amx_numba")
    return importlib.import_module("adlbench.methods.nn.sparse_amx_numba") if unit.available() else None


def on_tiles(features: Tensor) -> bool:
    """Whether there are kernels on a CPU's tile unit for features of this type."""
    return features.dtype == torch.bfloat16 and compiled(features) and tile_products() is not None


def compiled_products(features: Tensor) -> Any:
    """What multiplies features of this type on this device, None if plain torch has to."""
    if on_tiles(features):
        return tile_products()
    if not compiled(features) or not products().AVAILABLE:
        return None
    if features.dtype == torch.bfloat16:
        return _RoundedProducts
    return products() if features.dtype in (torch.float32, torch.float64) else None


class _RoundedProducts:
    """The results of ``sparse_amx_numba`` on a CPU without a tile unit, up to the order of sums: numbers in bfloat16, products and
    sums in float32."""

    @staticmethod
    def multiply(values: Tensor, kernel: Tensor, runs: Any, *, transposed: bool = False) -> Tensor:
        rounded = kernel.bfloat16().float()
        return products().multiply(values.float(), rounded, runs, transposed=transposed).bfloat16()  # type: ignore[no-any-return]

    @staticmethod
    def kernel_gradient(features: Tensor, gradient: Tensor, kernel: Tensor, runs: Any) -> Tensor:
        return products().kernel_gradient(features.float(), gradient.float(), kernel.float(), runs)  # type: ignore[no-any-return]


# ---------------------------------------------------------------------------------------------------------- kernel maps
class KernelMap:
    """Which source voxel each tap of a kernel reads for each target voxel."""

    def __init__(self, table: Tensor, num_sources: int, *, symmetric: bool, disjoint: bool = False):
        """``table`` int32 [targets, K]: rows of the sources, ``num_sources`` where there is no voxel.

        ``symmetric`` says that sources and targets are the same voxels and the offsets are centred, ``disjoint`` that no
        source is read by two targets.
        """
        self.table, self.num_sources, self.symmetric, self.disjoint = table, num_sources, symmetric, disjoint
        self.num_targets, self.taps = table.shape

    @cached_property
    def counts(self) -> Tensor:
        """int64 [targets]: the voxels within the kernel."""
        return (self.table < self.num_sources).sum(1)

    @cached_property
    def num_pairs(self) -> int:
        if compiled(self.table):
            return sparse_numba().count_pairs(self.table, self.num_sources)
        return int(self.counts.sum())

    @cached_property
    def pairs(self) -> Pairs:
        return Pairs.of(self)

    @cached_property
    def runs(self) -> Any:
        """The pairs as ``sparse_product_numba`` wants them."""
        return products().list_runs(self.table, self.num_sources)

    def prefers_table(self, channels: int) -> bool:
        """Whether computing zeros for absent voxels costs less than keeping pairs apart. The thresholds are measured: at 32
        channels a pair costs three times as much as a cell of the table, at 128 and above twice as much."""
        return self.num_pairs > self.num_targets * self.taps * min(0.5, 0.22 + channels / 512)

    @cached_property
    def adjoint(self) -> KernelMap:
        """The same pairs from targets to sources: of the gradient, and of the transposed convolution."""
        return _AdjointMap(self)


class _AdjointMap(KernelMap):
    """Makes of another map what it is asked for."""

    def __init__(self, of: KernelMap):
        self.num_targets, self.num_sources, self.taps = of.num_sources, of.num_targets, of.taps
        self.symmetric, self.disjoint, self.adjoint = of.symmetric, of.disjoint, of

    @cached_property
    def table(self) -> Tensor:  # type: ignore[override]
        table, absent = self.adjoint.table, self.num_sources
        if self.symmetric:  # if j is at offset o of i, then i is at -o of j
            return table.flip(1)
        if compiled(table):
            return sparse_numba().turn_round(table, self.num_targets)
        # a tap reads no source for two targets, so that turning the pairs round loses none
        cells = table.long() * self.taps + torch.arange(self.taps, device=table.device)
        turned = table.new_full(((self.num_targets + 1) * self.taps,), absent)
        rows = torch.arange(absent, dtype=torch.int32, device=table.device)
        turned[cells.flatten()] = rows.repeat_interleave(self.taps)
        return turned.view(-1, self.taps)[:-1].contiguous()

    @cached_property
    def num_pairs(self) -> int:
        return self.adjoint.num_pairs

    @cached_property
    def pairs(self) -> Pairs:
        return self.adjoint.pairs.turned(self.taps) if self.symmetric else Pairs.of(self)

    @cached_property
    def runs(self) -> Any:
        if self.symmetric:
            return self.adjoint.runs.reversed()
        if self.disjoint:
            return self.adjoint.runs.swapped(self.num_targets)
        return self.adjoint.runs.sorted_by_source(self.num_targets)


@dataclass(frozen=True)
class Pairs:
    """The pairs (source, target) of a map, tap after tap. The tap ``centre`` is left out: where it is not None, it maps
    every voxel to itself."""

    taps: list[int]  # which matrix of the kernel each run of pairs is for
    sizes: list[int]  # pairs in each run
    sources: Tensor  # int32 [pairs], input rows
    targets: Tensor  # int32 [pairs], output rows
    order: Tensor  # int32 [pairs]: the pairs sorted by target
    bounds: Tensor  # int32 [targets + 1]: where in ``order`` each target begins
    centre: int | None

    @staticmethod
    def of(kernel_map: KernelMap) -> Pairs:
        targets, taps, absent = kernel_map.num_targets, kernel_map.taps, kernel_map.num_sources
        centre = taps // 2 if kernel_map.symmetric else None
        if compiled(kernel_map.table):
            counted, sources, rows, order, bounds = sparse_numba().pairs(kernel_map.table, absent, centre)
            return Pairs(
                [tap for tap, size in enumerate(counted) if size], [size for size in counted if size],
                sources, rows, order, bounds, centre,
            )  # fmt: skip
        columns = kernel_map.table.t().contiguous()
        if centre is not None:
            columns[centre] = absent  # the identity needs no gather
        flat = columns.flatten()
        where = _nonzero(flat < absent)
        edges = torch.searchsorted(where, torch.arange(taps + 1, device=where.device) * targets).tolist()
        sizes = [end - start for start, end in itertools.pairwise(edges)]
        order, bounds = _sort_pairs(where, taps, targets)
        return Pairs(
            taps=[tap for tap, size in enumerate(sizes) if size],
            sizes=[size for size in sizes if size],
            sources=flat.index_select(0, where),
            targets=(where % targets).int(),
            order=order,
            bounds=bounds,
            centre=centre,
        )

    def turned(self, taps: int) -> Pairs:
        """Of the adjoint of a symmetric map: if j is at offset o of i, then i is at -o of j."""
        return replace(self, taps=[taps - 1 - tap for tap in self.taps])

    def sum_products(self, products: Tensor) -> Tensor:
        """Of one row per pair [pairs, C] those of each target: [targets, C]."""
        if not self.taps:
            return products.new_zeros(len(self.bounds) - 1, products.shape[1])
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


@cache
def kernel_offsets(kernel_size: int, dilation: int = 1) -> Tensor:
    """int64 [K, 3], (x, y, z) with x fastest: centred for odd sizes, 0 .. kernel_size - 1 for even ones."""
    start = -(kernel_size // 2) if kernel_size % 2 else 0
    steps = torch.arange(start, start + kernel_size) * dilation
    z, y, x = torch.meshgrid(steps, steps, steps, indexing="ij")
    return torch.stack([x, y, z], dim=-1).view(-1, 3)


def _sort_pairs(cells: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Pairs lie in ``cells`` [pairs] of a table [rows, columns]: the pairs sorted by column (then row), and where each
    column begins [columns + 1]. A transposition instead of a sort."""
    table = torch.full((rows * columns,), -1, dtype=torch.int32, device=cells.device)
    table.scatter_(0, cells, torch.arange(len(cells), dtype=torch.int32, device=cells.device))
    counts = (table.view(rows, columns) >= 0).sum(0)
    turned = table.view(rows, columns).t().flatten()
    return turned.index_select(0, _nonzero(turned >= 0)), functional.pad(counts.cumsum(0), (1, 0)).int()


def _few_cells(coordinates: Tensor) -> int:
    """Up to how many cells of a box a table over all of them pays."""
    return max(_TABLE_CELLS, _TABLE_CELLS_PER_VOXEL * len(coordinates))


def _nonzero(mask: Tensor) -> Tensor:
    """int64 indices of a mask [N]; NumPy's is several times faster on the CPU."""
    if mask.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.nonzero()[:, 0]


# ---------------------------------------------------------------------------------------------------------- coordinates
class TorchCoordinates(CoordinateManager):
    """Coordinates, kernel maps and convolution in torch, on any device."""

    def __init__(self, coordinates: Tensor, batch_size: int, *, checked: bool = False):
        """``coordinates`` int64 [N, 4], (item, x, y, z), unique and in lexicographic order, ``checked`` to be so."""
        self.batch_size = batch_size
        if len(coordinates) == 0:
            raise DataError("a sparse tensor without voxels; give every item at least one point")
        if len(coordinates) >= 2**31 - 1:  # rows are kept in 32 bits
            raise DataError(
                f"a sparse tensor of {len(coordinates):,} voxels; fewer than 2^31 are possible: split the batch"
            )
        low, high, ordered = self._survey(coordinates)
        if low[0] < 0 or high[0] >= batch_size:
            raise DataError(f"coordinates name items {low[0]}..{high[0]} in a batch of {batch_size}")
        self._low, self._high = low[1:], high[1:]
        self._levels: dict[int, Tensor] = {1: coordinates}
        self._maps: dict[tuple[int, int, int, int], KernelMap] = {}
        if checked:
            return
        box = self._box(1)
        if ordered is None:
            ordered = bool((self._keys(1, box).diff() > 0).all())
        if not ordered:
            raise DataError("coordinates must be unique and in lexicographic order; make them with `quantise`")

    @staticmethod
    def _survey(coordinates: Tensor) -> tuple[list[int], list[int], bool | None]:
        """Least and greatest of each column, and whether the rows are unique and ordered, if that is known."""
        if compiled(coordinates):
            found: tuple[list[int], list[int], bool] = sparse_numba().survey(coordinates)
            return found
        low, high = torch.stack([coordinates.amin(0), coordinates.amax(0)]).tolist()
        return low, high, None

    def coordinates(self, stride: int) -> Tensor:
        if stride not in self._levels:
            # floor(floor(c / a) / b) = floor(c / ab), so that any finer level whose stride divides this one will do
            finer = max(known for known in self._levels if stride % known == 0)
            self._levels[stride] = self._coarsen(self._levels[finer], stride)
        return self._levels[stride]

    def _coarsen(self, finer: Tensor, stride: int) -> Tensor:
        box = self._box(stride)
        cells = self.batch_size * math.prod(box.size)
        if compiled(finer) and cells <= _few_cells(finer):
            found: Tensor = sparse_numba().coarsen(finer, box, stride, self.batch_size)
            return found
        item, voxels = finer.split([1, 3], dim=1)
        keys = box.encode(item[:, 0], voxels.div(stride, rounding_mode="floor"))
        coordinates = box.decode(keys.unique())
        coordinates[:, 1:] *= stride
        return coordinates

    def _box(self, stride: int, below: int = 0, above: int = 0) -> Box:
        """Around all voxels in units of ``stride``, and so many more on either side."""
        low, high = ([value // stride for value in corner] for corner in (self._low, self._high))
        box = Box.around(low, high, below, above)
        if self.batch_size * math.prod(box.size) >= 2**62:
            raise DataError(
                f"voxels span {box.size} in {self.batch_size} items, more than can be numbered; remove outliers"
            )
        return box

    def _keys(self, stride: int, box: Box, unit: int | None = None) -> Tensor:
        """The voxels of ``stride`` numbered in ``box``, which counts in units of ``unit`` (of ``stride`` by default)."""
        coordinates, unit = self.coordinates(stride), unit or stride
        voxels = coordinates[:, 1:]
        return box.encode(coordinates[:, 0], voxels.div(unit, rounding_mode="floor") if unit > 1 else voxels)

    def neighbours(self, stride: int, out_stride: int, kernel_size: int, dilation: int = 1) -> Tensor:
        """int32 [M, K]: for each output voxel and tap the input row there, the number of input rows where there is none."""
        inputs, outputs = self.coordinates(stride), self.coordinates(out_stride)
        if kernel_size == out_stride // stride and kernel_size % 2 == 0 and dilation == 1 and compiled(inputs):
            box = self._box(out_stride)
            if self.batch_size * math.prod(box.size) <= _few_cells(inputs):
                return sparse_numba().children(inputs, outputs, box, stride, kernel_size, self.batch_size)
        offsets = kernel_offsets(kernel_size, dilation)
        # wide enough that no tap of any output voxel leaves the box and comes back in the next row
        least, most = offsets[0, 0].item(), offsets[-1, 0].item()
        box = self._box(stride, out_stride // stride - 1 - int(least), int(most))
        steps = ((offsets[:, 0] * box.size[1] + offsets[:, 1]) * box.size[2] + offsets[:, 2]).to(inputs.device)
        cells = self.batch_size * math.prod(box.size)
        small = cells <= _few_cells(inputs)
        if small and compiled(inputs):
            return sparse_numba().neighbours(inputs, outputs, box, stride, steps, self.batch_size)
        keys, queries = self._keys(stride, box), self._keys(out_stride, box, stride)
        wanted = (queries[:, None] + steps).flatten()
        if small:
            table = torch.full((cells,), len(keys), dtype=torch.int32, device=keys.device)
            table.scatter_(0, keys, torch.arange(len(keys), dtype=torch.int32, device=keys.device))
            found = table.index_select(0, wanted)
        else:
            place = torch.searchsorted(keys, wanted).clamp_(max=len(keys) - 1)
            found = torch.where(keys[place] == wanted, place, len(keys)).int()
        return found.view(-1, len(offsets))

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
            table = self.neighbours(stride, out_stride, kernel_size, dilation)
            symmetric = stride == out_stride and kernel_size % 2 == 1
            disjoint = (kernel_size - 1) * dilation < out_stride // stride
            self._maps[key] = KernelMap(table, len(self.coordinates(stride)), symmetric=symmetric, disjoint=disjoint)
        return self._maps[key]

    def convolve(
        self, features: Tensor, kernel: Tensor, stride: int, out_stride: int, kernel_size: int, dilation: int = 1
    ) -> Tensor:
        if kernel.shape[:2] != (kernel_size**3, features.shape[1]):
            raise AdlbenchError(
                f"a kernel [K, Cin, Cout] of {list(kernel.shape)} on {features.shape[1]} channels, size {kernel_size}"
            )
        if torch.is_autocast_enabled(features.device.type):
            features = features.to(torch.get_autocast_dtype(features.device.type))
        # The tile unit's products round the kernel themselves, and not its gradient.
        halves = features.dtype == torch.bfloat16 and compiled_products(features) is not None
        if torch.is_autocast_enabled(features.device.type) and not halves:
            kernel = kernel.to(features.dtype)
        # torch's product is slow for few channels in half precision
        if kernel_size == 1 and stride == out_stride and not halves:
            return features @ kernel[0]
        kernel_map = self.kernel_map(stride, out_stride, kernel_size, dilation)
        self._check_rows(features, stride)
        return _Convolution.apply(features, kernel, kernel_map)  # type: ignore[no-any-return]

    def pool(self, features: Tensor, stride: int, out_stride: int, kernel_size: int, mode: str) -> Tensor:
        kernel_map = self.kernel_map(stride, out_stride, kernel_size)
        self._check_rows(features, stride)
        if mode == "max":
            return _MaxPool.apply(features, kernel_map)  # type: ignore[no-any-return]
        sums: Tensor = _SumPool.apply(features, kernel_map)
        return sums if mode == "sum" else sums / kernel_map.counts.clamp(min=1)[:, None]

    def _check_rows(self, features: Tensor, stride: int) -> None:
        """What is compiled would read beyond its memory."""
        if len(features) != len(self.coordinates(stride)):
            raise AdlbenchError(
                f"{len(features)} features on {len(self.coordinates(stride))} voxels of stride {stride}"
            )

    def pool_items(self, features: Tensor, stride: int, mode: str) -> Tensor:
        self._check_rows(features, stride)
        if mode != "max" or not compiled(features):
            return super().pool_items(features, stride, mode)
        items, rows = self.items(stride), torch.arange(len(features))  # items ascend
        counts = torch.bincount(items, minlength=self.batch_size)
        table = torch.full((self.batch_size, int(counts.max())), len(features), dtype=torch.int32)
        table[items, rows - (counts.cumsum(0) - counts)[items]] = rows.int()
        return _MaxPool.apply(features, KernelMap(table, len(features), symmetric=False))  # type: ignore[no-any-return]


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
        features = features.contiguous()
        ctx.save_for_backward(features, kernel)
        ctx.kernel_map = kernel_map
        ctx.compiled = compiled_products(features)
        if ctx.compiled is not None:
            out: Tensor = ctx.compiled.multiply(features, kernel, kernel_map.runs)
            return out
        if kernel_map.prefers_table(max(kernel.shape[1:])):
            return _product_by_table(features, kernel, kernel_map)
        return _product_by_pairs(features, kernel, kernel_map.pairs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        features, kernel = ctx.saved_tensors
        forth: KernelMap = ctx.kernel_map
        back = forth.adjoint  # its sources are rows of the output, its targets rows of the input
        gradient, channels = gradient.contiguous(), max(kernel.shape[1:])
        to_features: Tensor | None = None
        to_kernel: Tensor | None = None
        want_features, want_kernel = ctx.needs_input_grad[:2]
        if ctx.compiled is not None:
            if want_features:
                to_features = ctx.compiled.multiply(gradient, kernel, back.runs, transposed=True)
            if want_kernel:
                to_kernel = ctx.compiled.kernel_gradient(features, gradient, kernel, forth.runs).to(kernel.dtype)
            return to_features, to_kernel, None
        if want_features and back.prefers_table(channels):
            to_kernel = _kernel_gradient_sums(kernel) if want_kernel else None
            to_features = _product_by_table(gradient, kernel.transpose(1, 2), back, features, to_kernel)
            if to_kernel is not None:  # [Cin, K * Cout]
                to_kernel = to_kernel.view(kernel.shape[1], -1, kernel.shape[2]).transpose(0, 1)
        else:
            if want_kernel and forth.prefers_table(channels):
                to_kernel, want_kernel = _kernel_gradient_by_table(features, gradient, kernel, forth), False
            if want_features or want_kernel:
                to_features, by_pairs = _gradients_by_pairs(
                    features, gradient, kernel, back.pairs, want_features=want_features, want_kernel=want_kernel
                )
                to_kernel = by_pairs if to_kernel is None else to_kernel
        return to_features, None if to_kernel is None else to_kernel.to(kernel.dtype), None


def _blocks(kernel_map: KernelMap, channels: int, device: torch.device) -> list[slice]:
    """Runs of targets whose gathered rows fit into a core's cache; on a GPU, of a size that keeps it busy."""
    numbers = _CHUNK if device.type == "cpu" else 2**26
    rows = max(numbers // (kernel_map.taps * channels), 64)
    return [slice(start, start + rows) for start in range(0, kernel_map.num_targets, rows)]


def _gather_block(padded: Tensor, kernel_map: KernelMap, block: slice) -> Tensor:
    """[targets, K * C]: the rows that all taps of a block of targets read, side by side."""
    index = kernel_map.table[block]
    return _workspace.rows_of("gathered", padded, index.view(-1)).view(len(index), -1)


def _pad(values: Tensor) -> Tensor:
    """With one more row of zeros, which is what an absent voxel reads."""
    return torch.cat([values, values.new_zeros(1, values.shape[1])])


def _product_by_table(
    values: Tensor, kernel: Tensor, kernel_map: KernelMap, others: Tensor | None = None, sums: Tensor | None = None
) -> Tensor:
    """``values`` [S, A] through ``kernel`` [K, A, B]: [T, B]. Adds others^T @ gathered values to ``sums`` [O, K * A] where
    it is given, for ``others`` [T, O]."""
    padded, matrix = _pad(values), kernel.reshape(-1, kernel.shape[2])
    out = values.new_empty(kernel_map.num_targets, kernel.shape[2])
    for block in _blocks(kernel_map, values.shape[1], values.device):
        gathered = _gather_block(padded, kernel_map, block)
        torch.mm(gathered, matrix, out=out[block])
        if sums is not None and others is not None:
            _add_product(sums, others[block].t(), gathered)
    return out


def _kernel_gradient_sums(kernel: Tensor) -> Tensor:
    """Zeros [Cin, K * Cout], in single precision at least: many blocks are summed."""
    taps, inputs, outputs = kernel.shape
    return kernel.new_zeros(inputs, taps * outputs, dtype=torch.promote_types(kernel.dtype, torch.float32))


def _kernel_gradient_by_table(features: Tensor, gradient: Tensor, kernel: Tensor, kernel_map: KernelMap) -> Tensor:
    padded = _pad(features)
    sums = kernel.new_zeros(
        kernel.shape[0] * kernel.shape[1], kernel.shape[2], dtype=torch.promote_types(kernel.dtype, torch.float32)
    )
    for block in _blocks(kernel_map, features.shape[1], features.device):
        _add_product(sums, _gather_block(padded, kernel_map, block).t(), gradient[block])
    return sums.view(kernel.shape)


def _add_product(sums: Tensor, left: Tensor, right: Tensor) -> None:
    if sums.dtype == left.dtype:
        sums.addmm_(left, right)
    else:
        sums.add_(left @ right)


def _product_by_pairs(features: Tensor, kernel: Tensor, pairs: Pairs) -> Tensor:
    matrices = kernel.unbind(0)
    products = _workspace.take("products", len(pairs.sources), kernel.shape[2], features)
    for runs, rows_of in pairs.chunks(_CHUNK // features.shape[1]):
        sizes = pairs.sizes[runs]
        gathered = _workspace.rows_of("gathered", features, pairs.sources[rows_of]).split(sizes)
        results = products[rows_of].split(sizes)
        for tap, rows, result in zip(pairs.taps[runs], gathered, results, strict=True):
            torch.mm(rows, matrices[tap], out=result)
    out = pairs.sum_products(products)
    return out if pairs.centre is None else out.addmm_(features, matrices[pairs.centre])


def _gradients_by_pairs(
    features: Tensor, gradient: Tensor, kernel: Tensor, back: Pairs, *, want_features: bool, want_kernel: bool
) -> tuple[Tensor | None, Tensor | None]:
    transposed = kernel.transpose(1, 2).unbind(0)
    to_kernel = _empty_but(kernel, {*back.taps, back.centre}) if want_kernel else None
    to_matrices = to_kernel.unbind(0) if to_kernel is not None else ()
    products = _workspace.take("products", len(back.sources) if want_features else 0, kernel.shape[1], gradient)
    for runs, rows_of in back.chunks(_CHUNK // max(kernel.shape[1:])):
        taps, sizes = back.taps[runs], back.sizes[runs]
        gathered = _workspace.rows_of("gathered", gradient, back.sources[rows_of]).split(sizes)
        if to_matrices:
            inputs = _workspace.rows_of("inputs", features, back.targets[rows_of]).split(sizes)
            for tap, rows, row_inputs in zip(taps, gathered, inputs, strict=True):
                torch.mm(row_inputs.t(), rows, out=to_matrices[tap])
        if want_features:
            for tap, rows, result in zip(taps, gathered, products[rows_of].split(sizes), strict=True):
                torch.mm(rows, transposed[tap], out=result)
    to_features = back.sum_products(products) if want_features else None
    if back.centre is not None:
        if to_matrices:
            torch.mm(features.t(), gradient, out=to_matrices[back.centre])
        if to_features is not None:
            to_features.addmm_(gradient, transposed[back.centre])
    return to_features, to_kernel


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
    return functional.embedding_bag(kernel_map.table, _pad(features), mode="sum")


class _MaxPool(torch.autograd.Function):
    """out[t] = maximum of features[s] over the neighbours s that are there; the gradient goes to the first maximum."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, kernel_map: KernelMap) -> Tensor:
        ctx.num_sources = len(features)
        halves = features.dtype in (torch.bfloat16, torch.float16)  # each of their numbers is one in float32
        ctx.compiled = compiled(features) and features.shape[1] > 0
        if ctx.compiled:
            largest, rows = sparse_numba().max_pool(features.float() if halves else features, kernel_map.table)
            ctx.save_for_backward(rows)
            return largest.to(features.dtype)  # type: ignore[no-any-return]
        lowest = features.new_full((1, features.shape[1]), -torch.inf)
        padded, columns = torch.cat([features, lowest]), kernel_map.table.t().long()
        largest = padded.index_select(0, columns[0])
        rows = columns[0][:, None].expand_as(largest).contiguous()  # [M, C]: where each maximum came from
        for column in columns[1:]:
            candidate = padded.index_select(0, column)
            rows = torch.where(candidate > largest, column[:, None], rows)
            torch.maximum(largest, candidate, out=largest)
        ctx.save_for_backward(rows)
        return largest.masked_fill_(rows == len(features), 0.0)  # no voxel within the kernel

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        if ctx.compiled:
            halves = gradient.dtype in (torch.bfloat16, torch.float16)
            sums = sparse_numba().max_pool_gradient(gradient.float() if halves else gradient, rows, ctx.num_sources)
            return sums.to(gradient.dtype), None
        out = gradient.new_zeros(ctx.num_sources + 1, gradient.shape[1])
        return out.scatter_add_(0, rows, gradient)[:-1], None
