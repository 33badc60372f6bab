"""The rasteriser for a CPU, compiled by numba, in float32: tile by tile, Gaussian by Gaussian, a tile's pixels in vector
registers. ``gaussian_rasterizer`` has the rules and calls this where numba is installed.

Nothing is kept for the backward pass but each pixel's final transmittance and how far down its tile's list it went: the
list is gone through from behind, and transmittance divided by 1 - alpha again. Memory is linear in the pairs of a Gaussian
and a tile, not in those of a Gaussian and a pixel.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
import torch
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from adlbench.methods.nn.gaussian_tiles import front_to_back

Floats = NDArray[np.float32]
Integers = NDArray[np.integer]

SIZE = 8  # side of a tile in pixels
PIXELS = SIZE * SIZE
STRIP = 16  # pixels that are looked at together: a constant number, so that the loop over them is vectorised
LOOK = 8  # Gaussians between two looks at whether all of a tile is opaque
SHAPE = 6  # mean x, y, conic a, b, c, log opacity: the first columns of a table
MIN_ALPHA = np.float32(1 / 255)
MIN_TRANSMITTANCE = np.float32(1e-4)
LOG2_E = np.float32(math.log2(math.e))
NO_LIGHT = np.float32(-20)  # exp of this is below 1/255 whatever the rounding
ZERO, HALF, ONE = np.float32(0), np.float32(0.5), np.float32(1)

_intrinsic: Any = intrinsic  # neither decorator has types
_jit: Any = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"nsz", "arcp", "contract", "reassoc"})


def composite(
    means2d: Tensor,
    conics: Tensor,
    opacities: Tensor,
    features: Tensor,
    depths: Tensor,
    reach: Tensor,
    boxes: tuple[Tensor, Tensor],
    image_size: tuple[int, int],
    max_alpha: float,
) -> Tensor:
    """[C + 1, H, W] composited features and opacity; arguments as in ``gaussian_rasterizer.rasterize``, all float32.

    Args:
        reach: [N] the quadratic form up to which alpha is at least 1/255.
        boxes: first and last pixel [2, N] that may be reached.
        image_size: width, height.
    """
    image: Tensor = _Composite.apply(means2d, conics, opacities, features, depths, reach, boxes, image_size, max_alpha)
    return image


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        means2d: Tensor,
        conics: Tensor,
        opacities: Tensor,
        features: Tensor,
        depths: Tensor,
        reach: Tensor,
        boxes: tuple[Tensor, Tensor],
        image_size: tuple[int, int],
        max_alpha: float,
    ) -> Tensor:
        width, height = image_size
        first, last = boxes
        order = front_to_back(depths, (last >= first).all(0))
        columns, rows = -(-width // SIZE), -(-height // SIZE)
        values = (_array(x) for x in (order, first, last, means2d, conics, opacities, reach, features))
        table, spans, starts, entries = _sort_into_tiles(*values, columns, rows)
        image, final, stops = _forward(table, spans, starts, entries, columns, width, height, np.float32(max_alpha))
        ctx.lists = (_array(order), table, spans, starts, entries, columns)
        ctx.pixels, ctx.max_alpha, ctx.num_gaussians = (final, stops), np.float32(max_alpha), len(opacities)
        return torch.from_numpy(image)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_image: Tensor) -> tuple[Tensor | None, ...]:
        order, *lists = ctx.lists
        rows = _backward(*lists, ctx.max_alpha, *ctx.pixels, _array(grad_image))
        grads = torch.from_numpy(_spread(rows, lists[0], order, ctx.num_gaussians))
        return grads[:2], grads[2:5], grads[5], grads[6:], None, None, None, None, None


def _array(tensor: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.detach().contiguous().numpy()
    return array


@_intrinsic
def _power_of_two(context: Any, exponent: Any) -> Any:
    """2^n as float32 for an int32 n in -126 .. 127: its bits are n + 127, moved to the exponent's place."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        from llvmlite import ir

        integer = ir.IntType(32)
        biased = builder.add(arguments[0], ir.Constant(integer, 127))
        return builder.bitcast(builder.shl(biased, ir.Constant(integer, 23)), ir.FloatType())

    return types.float32(types.int32), build


@_jit
def _exp(x: Any) -> Any:
    """exp for -80 < x < 80, to 2e-7: 2^n times a polynomial for the rest (the Cephes library's expf). A call to the
    system's exp would keep the loops around it from being vectorised."""
    n = np.floor(x * LOG2_E + HALF)
    r = x - n * np.float32(0.693359375) + n * np.float32(2.12194440e-4)
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    p = p * r * r + r + ONE
    return p * _power_of_two(np.int32(n))


@_jit
def _sort_into_tiles(
    order: Integers,
    first: Integers,
    last: Integers,
    means2d: Floats,
    conics: Floats,
    opacities: Floats,
    reach: Floats,
    features: Floats,
    columns: int,
    rows: int,
) -> tuple[Floats, Integers, Integers, Integers]:
    """A table [S, 6 + C] of the Gaussians ``order`` [S] and the rows of the image that they can reach, spans [S, 2] (the
    second one is the first beyond); for each of T tiles the places in the table of those that touch it, ascending: starts
    [T + 1] and entries. A counting sort: Gaussians come nearest first already."""
    seen, channels = len(order), len(features)
    table = np.empty((seen, SHAPE + channels), np.float32)
    spans = np.empty((seen, 2), np.int32)
    candidates = 0
    for i in range(seen):
        g = order[i]
        table[i, 0], table[i, 1] = means2d[0, g], means2d[1, g]
        table[i, 2], table[i, 3], table[i, 4] = conics[0, g], conics[1, g], conics[2, g]
        table[i, 5] = np.log(max(opacities[g], MIN_ALPHA))
        for c in range(channels):
            table[i, SHAPE + c] = features[c, g]
        spans[i, 0], spans[i, 1] = first[1, g], last[1, g] + 1
        across, down = last[0, g] // SIZE - first[0, g] // SIZE + 1, last[1, g] // SIZE - first[1, g] // SIZE + 1
        candidates += int(across) * int(down)
    tiles = np.empty(candidates, np.int32)
    members = np.empty(candidates, np.int32)
    starts = np.zeros(columns * rows + 1, np.int64)
    pairs = 0
    for i in range(seen):
        g = order[i]
        left, right, top, bottom = first[0, g] // SIZE, last[0, g] // SIZE, first[1, g] // SIZE, last[1, g] // SIZE
        alone = left == right and top == bottom
        limit = reach[g] * np.float32(1.01) + np.float32(0.01)
        for row in range(top, bottom + 1):
            for column in range(left, right + 1):
                if alone or _meets(table, i, limit, column, row):
                    tile = row * columns + column
                    tiles[pairs], members[pairs] = tile, i
                    starts[tile + 1] += 1
                    pairs += 1
    for tile in range(columns * rows):
        starts[tile + 1] += starts[tile]
    entries = np.empty(pairs, np.int32)
    position = starts[:-1].copy()
    for pair in range(pairs):
        tile = tiles[pair]
        entries[position[tile]] = members[pair]
        position[tile] += 1
    return table, spans, starts, entries


@_jit
def _meets(table: Floats, i: int, limit: Any, column: int, row: int) -> Any:
    """Whether an ellipse comes near a pixel centre of a tile: ``gaussian_tiles._meets`` for one."""
    a, b, c = table[i, 2], table[i, 3], table[i, 4]
    left, top = np.float32(column * SIZE) + HALF - table[i, 0], np.float32(row * SIZE) + HALF - table[i, 1]
    right, bottom = left + np.float32(SIZE - 1), top + np.float32(SIZE - 1)
    side_x, side_y = max(left, ZERO) + min(right, ZERO), max(top, ZERO) + min(bottom, ZERO)
    y = min(max(-(b * side_x) / c, top), bottom)
    x = min(max(-(b * side_y) / a, left), right)
    one = (a * side_x + ONE * 2 * b * y) * side_x + c * y * y
    other = (a * x + ONE * 2 * b * side_y) * x + c * side_y * side_y
    return min(one, other) <= limit


@_jit
def _pixel_range(begin: int, end: int) -> tuple[int, int]:
    """From where to where in a tile are rows ``begin`` .. ``end``. The masks change nothing: they tell the compiler that
    no index is negative, without which it does not vectorise."""
    first, last = max(begin, 0) & (SIZE - 1), (min(end, SIZE) - 1) & (SIZE - 1)
    return first * SIZE // STRIP * STRIP, last * SIZE // STRIP * STRIP + STRIP


@_jit
def _forward(
    table: Floats,
    spans: Integers,
    starts: Integers,
    entries: Integers,
    columns: int,
    width: int,
    height: int,
    max_alpha: Any,
) -> tuple[Floats, Floats, Floats]:
    """The image [C + 1, H, W], and for each pixel of each tile [T, P] the final transmittance and the number of entries
    that count for it."""
    tiles, channels = len(starts) - 1, table.shape[1] - SHAPE
    image = np.zeros((channels + 1, height, width), np.float32)
    final = np.empty((tiles, PIXELS), np.float32)
    stops = np.empty((tiles, PIXELS), np.float32)
    # All of a tile in one array, at constant offsets: only so the compiler knows that nothing overlaps.
    x_, y_, now_, final_, stop_, weight_, opacity_, image_ = range(0, 8 * PIXELS, PIXELS)
    s = np.empty((7 + 1 + channels) * PIXELS, np.float32)
    for p in range(PIXELS):
        s[x_ + p] = np.float32(p % SIZE) + HALF
        s[y_ + p] = np.float32(p // SIZE) + HALF
    for tile in range(tiles):
        first, length = starts[tile], starts[tile + 1] - starts[tile]
        left, top = tile % columns * SIZE, tile // columns * SIZE
        for p in range(PIXELS):
            inside = left + p % SIZE < width and top + p // SIZE < height
            s[now_ + p] = ONE if inside else ZERO  # transmittance; 0 from when the pixel is done
            s[final_ + p] = ONE
            s[stop_ + p] = ZERO
        s[opacity_:] = ZERO
        k = 0
        while k < length:
            until = min(length, k + LOOK)
            while k < until:
                e = entries[first + k]
                mx, my = table[e, 0] - np.float32(left), table[e, 1] - np.float32(top)
                a, b, c, log_opacity = -HALF * table[e, 2], -table[e, 3], -HALF * table[e, 4], table[e, 5]
                begin, end = _pixel_range(spans[e, 0] - top, spans[e, 1] - top)
                rank = np.float32(k + 1)
                for strip in range(begin // STRIP, end // STRIP):
                    for q in range(STRIP):
                        p = strip * STRIP + q
                        dx, dy = s[x_ + p] - mx, s[y_ + p] - my
                        power = log_opacity + (a * dx + b * dy) * dx + c * dy * dy
                        alpha = min(_exp(max(power, NO_LIGHT)), max_alpha)
                        alpha = alpha if alpha >= MIN_ALPHA else ZERO
                        now = s[now_ + p]
                        after = now - now * alpha
                        # As a factor: a conditional store would stall the loads of the next Gaussian.
                        alive = ONE if after >= MIN_TRANSMITTANCE else ZERO
                        weight = now * alpha * alive
                        s[stop_ + p] = max(s[stop_ + p], rank * alive)
                        s[now_ + p] = after * alive
                        s[final_ + p] -= weight
                        s[weight_ + p] = weight
                        s[opacity_ + p] += weight
                for channel in range(channels):
                    value = table[e, SHAPE + channel]
                    offset = image_ + channel * PIXELS
                    for p in range(begin, end):
                        s[offset + p] += s[weight_ + p] * value
                k += 1
            light = ZERO
            for p in range(PIXELS):
                light += s[now_ + p]
            if light == ZERO:
                break
        for p in range(PIXELS):
            final[tile, p] = s[final_ + p]
            stops[tile, p] = s[stop_ + p]
        for y in range(min(SIZE, height - top)):
            for x in range(min(SIZE, width - left)):
                p = y * SIZE + x
                image[channels, top + y, left + x] = s[opacity_ + p]
                for channel in range(channels):
                    image[channel, top + y, left + x] = s[image_ + channel * PIXELS + p]
    return image, final, stops


@_jit
def _backward(
    table: Floats,
    spans: Integers,
    starts: Integers,
    entries: Integers,
    columns: int,
    max_alpha: Any,
    final: Floats,
    stops: Floats,
    grad_image: Floats,
) -> Floats:
    """Gradients [S, 6 + C] of the table from those of the image [C + 1, H, W]."""
    tiles, channels = len(starts) - 1, table.shape[1] - SHAPE
    height, width = grad_image.shape[1:]
    grads = np.zeros_like(table)
    x_, y_, before_, behind_, pull_, weight_, stop_, opacity_, image_ = range(0, 9 * PIXELS, PIXELS)
    s = np.empty((8 + 1 + channels) * PIXELS, np.float32)
    for p in range(PIXELS):
        s[x_ + p] = np.float32(p % SIZE) + HALF
        s[y_ + p] = np.float32(p // SIZE) + HALF
    for tile in range(tiles):
        first = starts[tile]
        left, top = tile % columns * SIZE, tile // columns * SIZE
        longest = ZERO
        for p in range(PIXELS):
            s[before_ + p] = final[tile, p]
            s[behind_ + p] = ZERO  # sum of weight dL/dweight over what is further back
            s[stop_ + p] = stops[tile, p]
            longest = max(longest, stops[tile, p])
        if longest == ZERO:
            continue
        s[opacity_:] = ZERO
        for y in range(min(SIZE, height - top)):
            for x in range(min(SIZE, width - left)):
                p = y * SIZE + x
                s[opacity_ + p] = grad_image[channels, top + y, left + x]
                for channel in range(channels):
                    s[image_ + channel * PIXELS + p] = grad_image[channel, top + y, left + x]
        for k in range(int(longest) - 1, -1, -1):
            e = entries[first + k]
            mx, my = table[e, 0] - np.float32(left), table[e, 1] - np.float32(top)
            ca, cb, cc = table[e, 2], table[e, 3], table[e, 4]
            a, b, c, log_opacity = -HALF * ca, -cb, -HALF * cc, table[e, 5]
            rank = np.float32(k)
            begin, end = _pixel_range(spans[e, 0] - top, spans[e, 1] - top)
            for p in range(begin, end):
                s[pull_ + p] = s[opacity_ + p]
            for channel in range(channels):
                value = table[e, SHAPE + channel]
                offset = image_ + channel * PIXELS
                for p in range(begin, end):
                    s[pull_ + p] += s[offset + p] * value  # dL/dweight
            s0 = sx = sy = sxx = sxy = syy = ZERO
            for strip in range(begin // STRIP, end // STRIP):
                for q in range(STRIP):
                    p = strip * STRIP + q
                    dx, dy = s[x_ + p] - mx, s[y_ + p] - my
                    power = log_opacity + (a * dx + b * dy) * dx + c * dy * dy
                    raw = _exp(max(power, NO_LIGHT))
                    alpha = min(raw, max_alpha)
                    alpha = alpha if alpha >= MIN_ALPHA and rank < s[stop_ + p] else ZERO
                    inverse = ONE / (ONE - alpha)
                    before = s[before_ + p] * inverse
                    weight = before * alpha
                    s[before_ + p] = before
                    s[weight_ + p] = weight
                    part = weight * s[pull_ + p]
                    grad = part - alpha * inverse * s[behind_ + p]  # dL/dpower = alpha dL/dalpha
                    s[behind_ + p] += part
                    grad = grad if raw <= max_alpha else ZERO
                    gx, gy = grad * dx, grad * dy
                    s0 += grad
                    sx += gx
                    sy += gy
                    sxx += gx * dx
                    sxy += gx * dy
                    syy += gy * dy
            grads[e, 0] += ca * sx + cb * sy
            grads[e, 1] += cb * sx + cc * sy
            grads[e, 2] -= HALF * sxx
            grads[e, 3] -= sxy
            grads[e, 4] -= HALF * syy
            grads[e, 5] += s0
            for channel in range(channels):
                total = ZERO
                offset = image_ + channel * PIXELS
                for p in range(begin, end):
                    total += s[weight_ + p] * s[offset + p]
                grads[e, SHAPE + channel] += total
    return grads


@_jit
def _spread(rows: Floats, table: Floats, order: Integers, number: int) -> Floats:
    """Gradients [6 + C, N] of means, conics, opacities and features from those of the table [S, 6 + C]."""
    grads = np.zeros((rows.shape[1], number), np.float32)
    for i in range(len(order)):
        g = order[i]
        for column in range(rows.shape[1]):
            grads[column, g] = rows[i, column]
        grads[5, g] *= np.exp(-table[i, 5])
    return grads
