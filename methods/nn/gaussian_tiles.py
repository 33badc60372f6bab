"""Which Gaussians touch which tile of the image, front to back.

A tile's list holds every Gaussian with alpha >= 1/255 at one of its pixels, so a rendering does not depend on the size of
the tiles; only its speed does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

CHUNK = 32  # Gaussians that are composited at once
SIZES = (4, 8, 16)  # of tiles, on a CPU
PAIR_COST = 25  # a (tile, Gaussian) pair costs a CPU about as much as so many (pixel, Gaussian) pairs


@dataclass(frozen=True)
class Tiles:
    """T tiles of ``size`` x ``size`` pixels, row by row, and their lists of Gaussians cut into chunks of ``CHUNK``."""

    size: int
    columns: int
    rows: int
    num_gaussians: int
    slots: Tensor  # [S, CHUNK] int64: indices of Gaussians by tile, by depth; the number of Gaussians N marks padding
    first_chunk: Tensor  # [T] int64: row of ``slots`` where a tile's list starts
    num_chunks: Tensor  # [T] int64: rows of ``slots`` that it fills


def pixel_boxes(means2d: Tensor, variances: Tensor, reach: Tensor, width: int, height: int) -> tuple[Tensor, Tensor]:
    """First and last pixel [2, N] (x, y; inclusive; int32) of the box around the ellipse p^T cov^-1 p = ``reach``, inside
    the image; only pixels count whose centre is in it. A box is empty where last < first.

    Args:
        variances: [2, N] of x and y; 0 for Gaussians that are not to be drawn.
        reach: [N]; negative for Gaussians that are nowhere bright enough.
    """
    half = (reach.clamp(min=0) * variances).sqrt_()
    half.mul_(1.0001).add_(1e-3)  # rounding must not lose a pixel that counts; one too many is skipped by its alpha
    half.masked_fill_(~((reach > 0) & (variances[0] > 0)), -1)  # NaN is not drawn either
    means2d = means2d.nan_to_num(0.0)
    limit = torch.tensor([[width], [height]], dtype=means2d.dtype, device=means2d.device)
    first = (means2d - half - 0.5).ceil_().clamp_(min=0).minimum(limit)
    last = (means2d + half - 0.5).floor_().minimum(limit - 1).clamp_(min=-1)
    return first.int(), last.int()


def bin_gaussians(
    means2d: Tensor,
    conics: Tensor,
    reach: Tensor,
    boxes: tuple[Tensor, Tensor],
    depths: Tensor,
    width: int,
    height: int,
    size: int | None = None,
) -> Tiles:
    """Sort Gaussians with ``boxes`` from ``pixel_boxes`` into tiles, nearest first.

    Args:
        depths: [N]; equal depths keep the order of the indices.
        size: side of a tile in pixels; by default the one with the least work is taken.
    """
    device = depths.device
    first, last = boxes
    order = front_to_back(depths, (last >= first).all(0))
    low, high = first.index_select(1, order), last.index_select(1, order)
    if size is None:
        size = _cheapest_size(low, high) if device.type == "cpu" else 16
    columns, rows = -(-width // size), -(-height // size)
    num_tiles, num_seen = columns * rows, len(order)
    low = torch.div(low, size, rounding_mode="trunc")
    span_x, span_y = torch.div(high, size, rounding_mode="trunc").sub_(low).add_(1)

    # One pair for each Gaussian and each tile of its box: the k-th is in row k // span_x, column k % span_x of the box.
    counts = span_x * span_y
    ends = counts.cumsum(0)
    num_pairs = int(ends[-1]) if num_seen else 0
    integer = torch.int32 if max(num_tiles * num_seen, num_pairs) < 2**31 else torch.int64
    rank = torch.arange(num_seen, dtype=integer, device=device)
    rank = torch.repeat_interleave(rank, counts.long(), output_size=num_pairs)
    column, row, span, start = torch.stack([*low, span_x, ends - counts]).to(integer).index_select(1, rank)
    k = torch.arange(num_pairs, dtype=integer, device=device).sub_(start)
    step = ((k.float() + 0.5) / span).to(integer)  # exact: k and span are far below 2^23
    row += step
    column += k.sub_(step.mul_(span))
    ellipses = torch.stack([*means2d, *conics, reach]).index_select(1, order).index_select(1, rank)
    met = _meets(ellipses, column, row, size).nonzero().squeeze(1)

    # By tile, then by depth: both in one number.
    keys = _sorted(row.mul_(columns).add_(column).mul_(num_seen).add_(rank).index_select(0, met))
    tile = torch.div(keys, max(num_seen, 1), rounding_mode="trunc")
    gaussians = order.index_select(0, keys.sub_(tile * num_seen))
    lengths = torch.bincount(tile, minlength=num_tiles)
    num_chunks = torch.div(lengths + (CHUNK - 1), CHUNK, rounding_mode="trunc")
    first_chunk = num_chunks.cumsum(0) - num_chunks
    shift = first_chunk * CHUNK - (lengths.cumsum(0) - lengths)  # from the place among the pairs to that in ``slots``
    place = shift.index_select(0, tile).add_(torch.arange(len(tile), device=device))
    slots = torch.full((int(num_chunks.sum()) * CHUNK,), depths.numel(), dtype=torch.int64, device=device)
    slots.scatter_(0, place, gaussians)
    return Tiles(size, columns, rows, depths.numel(), slots.view(-1, CHUNK), first_chunk, num_chunks)


def _meets(ellipses: Tensor, column: Tensor, row: Tensor, size: int) -> Tensor:
    """[M] whether an ellipse comes near a pixel centre of the tile at ``column``, ``row`` [M].

    The quadratic form is least on one of the two sides of the tile that face the mean, at the point of that side where
    its derivative is zero, or at the end of the side before that.

    Args:
        ellipses: [6, M] mean, conic, reach.
    """
    mx, my, a, b, c, reach = ellipses
    left = (column * size + 0.5).sub_(mx)  # of the first pixel's centre from the mean
    top = (row * size + 0.5).sub_(my)
    right, bottom = left + (size - 1), top + (size - 1)
    side_x = left.clamp(min=0).add_(right.clamp(max=0))  # 0 where the mean is between left and right
    side_y = top.clamp(min=0).add_(bottom.clamp(max=0))
    y = torch.minimum(torch.maximum((b * side_x).div_(c).neg_(), top), bottom)
    x = torch.minimum(torch.maximum((b * side_y).div_(a).neg_(), left), right)
    least = torch.minimum(_form(a, b, c, side_x, y), _form(a, b, c, x, side_y))
    return least <= reach.mul(1.01).add_(0.01)


def _form(a: Tensor, b: Tensor, c: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """a x^2 + 2 b x y + c y^2"""
    return (a * x).addcmul_(b, y, value=2).mul_(x).addcmul_(c * y, y)


def front_to_back(depths: Tensor, seen: Tensor) -> Tensor:
    """Indices of the Gaussians that are ``seen`` [N], nearest first."""
    index = seen.nonzero().squeeze(1)
    depths = depths.index_select(0, index)
    if depths.dtype != torch.float32:
        return index[torch.argsort(depths, stable=True)]
    # The bits of a float, read as an integer, are in its order (negative ones the other way round); the index breaks ties.
    bits = depths.contiguous().view(torch.int32).long()
    bits = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return _sorted((bits << 32) | index) & 0xFFFFFFFF


def _sorted(keys: Tensor) -> Tensor:
    """numpy sorts integers with vector instructions, torch on a CPU does not: a factor of five."""
    return torch.from_numpy(np.sort(keys.numpy())) if keys.device.type == "cpu" else torch.sort(keys).values


def _cheapest_size(low: Tensor, high: Tensor) -> int:
    costs = {}
    for size in SIZES:
        tiles = torch.div(high, size, rounding_mode="trunc") - torch.div(low, size, rounding_mode="trunc") + 1
        costs[size] = int((tiles[0] * tiles[1]).sum()) * (size * size + PAIR_COST)
    return min(costs, key=costs.__getitem__)
