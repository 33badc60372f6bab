"""Sorted alpha compositing of 2D Gaussians with hand-written gradients (Kerbl et al. 2023, section 6).

All arrays have the Gaussian's index last ([2, N], [C, N]), so that work per Gaussian is work on contiguous vectors.

The image is cut into tiles; a tile's Gaussians are composited front to back in chunks, many tiles at once. Within a
tile the exponent of a Gaussian is a quadratic polynomial of the pixel's position, so that all of them are one matrix
product, and so are the colours and every gradient: [Gaussians, 6] x [6, pixels]. A tile is done when its list ends or
every pixel of it is opaque.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from adlbench.benchmark.api import DataError
from adlbench.methods.nn.gaussian_surface import blend_surface
from adlbench.methods.nn.gaussian_tiles import CHUNK, Tiles, bin_gaussians, pixel_boxes
from adlbench.methods.nn.precision import full_precision

ROUND = 8  # chunks of a tile's list between two looks at whether it is opaque
MIN_ALPHA = 1 / 255  # a Gaussian is skipped at a pixel where it is fainter than this
LOG_MIN_ALPHA = math.log(MIN_ALPHA)
LOG_ZERO = -40.0  # 1 - exp(-40) is 1 even in double precision; further down exp is up to a hundred times slower
MIN_TRANSMITTANCE = 1e-4  # a pixel is done before the Gaussian that would take it below this

_threshold_backward = torch.ops.aten.threshold_backward  # (x, y, t) -> x where y > t, else 0: one vectorised pass


class Raster(NamedTuple):
    features: Tensor  # [C, H, W], premultiplied by opacity
    opacity: Tensor  # [H, W] in [0, 1]
    visible: Tensor  # [N] bool: alpha reaches 1/255 at some pixel, were the Gaussian alone


def rasterize(
    means2d: Tensor,
    conics: Tensor,
    variances: Tensor,
    opacities: Tensor,
    features: Tensor,
    depths: Tensor,
    width: int,
    height: int,
    *,
    max_alpha: float = 0.99,
    tile_size: int | None = None,
    backend: str | None = None,
    surface_tolerance: float | None = None,
) -> Raster:
    """Composite ``features`` of N Gaussians, nearest first, over nothing.

    Args:
        means2d: [2, N] in pixels; the centre of the first pixel is (0.5, 0.5).
        conics: [3, N] the entries a, b, c of the inverse covariance [[a, b], [b, c]], in 1/pixel^2.
        variances: [2, N] the diagonal of the covariance, pixel^2; 0 for Gaussians that are not to be drawn. No gradient.
        opacities: [N] in [0, 1].
        features: [C, N] what to composite, e.g. colours.
        depths: [N] the order; no gradient.
        max_alpha: upper bound of alpha at a pixel: 0.99 in the paper, 0.999 in gsplat.
        tile_size: side of a tile in pixels; by default whatever is fastest. Does not change the result. With "torch" only.
        backend: "torch", or "numba" for float32 on a CPU; by default the faster one that is installed (see ``backends``).
        surface_tolerance: blend what is within so many world units of the nearest Gaussian as one surface, and leave out what is
            behind (``gaussian_surface``), in place of compositing. In plain torch.

    bfloat16 and float16 are computed and returned as float32, also under autocast: a transmittance of 1e-4 has no digits in
    them. float32 images are right to 1e-5, gradients to 2e-5 of the largest. A Gaussian whose mean, conic or opacity is not
    finite is not drawn. Raises DataError for arrays of different numbers of Gaussians, and for images without a pixel.
    """
    numbers = [x.shape[-1] for x in (means2d, conics, variances, opacities, features, depths)]
    if len(set(numbers)) > 1 or min(width, height) < 1:
        raise DataError(
            f"arrays of {numbers} Gaussians to draw on {width} x {height} pixels; wanted: one number, and a pixel"
        )
    means2d, conics, opacities, features = (at_least_float32(x) for x in (means2d, conics, opacities, features))
    plain = tile_size is not None or surface_tolerance is not None
    backend = backend or ("torch" if plain else backends(means2d)[0])
    with torch.no_grad():
        # opacity exp(-form / 2) >= 1/255 where the quadratic form is at most ``reach``
        reach = 2 * (opacities / MIN_ALPHA).log()
        first, last = pixel_boxes(means2d, variances, reach, width, height)
    if backend == "numba":
        from adlbench.methods.nn.gaussian_numba import composite

        boxes, image_size = (first, last), (width, height)
        image = composite(means2d, conics, opacities, features, depths, reach, boxes, image_size, max_alpha)
        return Raster(image[:-1], image[-1], (last >= first).all(0))
    with torch.no_grad():
        tiles = bin_gaussians(means2d, conics, reach, (first, last), depths, width, height, tile_size)
    if surface_tolerance is not None:
        parts = (means2d, conics, opacities, features, depths)
        image = blend_surface(*parts, tiles, (width, height), max_alpha, surface_tolerance)
        return Raster(image[:-1], image[-1], (last >= first).all(0))
    keep = torch.is_grad_enabled() and any(x.requires_grad for x in (means2d, conics, opacities, features))
    image = _Composite.apply(means2d, conics, opacities, features, tiles, (width, height), max_alpha, keep)
    return Raster(image[:-1], image[-1], (last >= first).all(0))


def backends(like: Tensor) -> tuple[str, ...]:
    """What can rasterise tensors such as this one, the fastest first."""
    compiled = like.device.type == "cpu" and like.dtype == torch.float32 and find_spec("numba") is not None
    return ("numba", "torch") if compiled else ("torch",)


def at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


@dataclass
class _Block:
    """Some tiles and as many Gaussians of each, with what the backward pass needs of the forward pass."""

    tiles: Tensor  # [B]
    gaussians: Tensor  # [B * K]
    shape: Tensor  # [5, B * K] means from the tile's centre, conics
    colour: Tensor  # [B, C + 1, K]
    weights: Tensor  # [B, K, P] alpha times transmittance
    odds: Tensor  # [B, K, P] alpha / (alpha - 1)


class _Composite(torch.autograd.Function):
    @staticmethod
    @full_precision
    def forward(
        ctx: Any,
        means2d: Tensor,
        conics: Tensor,
        opacities: Tensor,
        features: Tensor,
        tiles: Tiles,
        image_size: tuple[int, int],
        max_alpha: float,
        keep: bool,
    ) -> Tensor:
        width, height = image_size
        pixels = tiles.size**2
        table = _table(means2d, conics, opacities, features)  # [6 + C + 1, N + 1]
        monomials = _monomials(tiles.size, means2d)
        centres = _tile_centres(tiles, means2d)
        one = means2d.new_ones(())
        image = means2d.new_zeros(tiles.columns * tiles.rows, len(features) + 1, pixels)
        transmittance = _inside(tiles, width, height, means2d)  # [T, P]; 0 outside the image, where all is done at once
        blocks: list[_Block] = []

        def composite(part: Tensor, gaussians: Tensor) -> Tensor:
            """Gaussians [B * K] in front of tiles ``part`` [B]; what light is left behind them [B, P]."""
            entries = table.index_select(1, gaussians)
            shape, colour = entries[:6], entries[6:].view(len(table) - 6, len(part), -1).transpose(0, 1)
            log_alpha = torch.mm(_coefficients(shape, centres.index_select(1, part)).t(), monomials)
            alpha = torch.threshold_(log_alpha, LOG_MIN_ALPHA, LOG_ZERO).exp_().clamp_(max=max_alpha)
            alpha = alpha.view(len(part), -1, pixels)
            # [B, K + 1, P]: in front of the first Gaussian, ..., behind the last
            passed = alpha.new_empty(len(part), alpha.shape[1] + 1, pixels)
            passed[:, 0] = transmittance.index_select(0, part)
            torch.sub(one, alpha, out=passed[:, 1:])
            passed.cumprod_(1)
            alpha = _threshold_backward(alpha, passed[:, 1:], MIN_TRANSMITTANCE)
            weights = alpha * passed[:, :-1]
            image.index_add_(0, part, torch.bmm(colour, weights))
            if keep:
                blocks.append(_Block(part, gaussians, shape[:5], colour, weights, alpha.div_(alpha - one)))
            return passed[:, -1]

        for part, gaussians in _schedule(tiles, transmittance):
            transmittance.index_copy_(0, part, composite(part, gaussians))
        ctx.blocks, ctx.tiles, ctx.max_alpha, ctx.num_features = blocks, tiles, max_alpha, len(features)
        ctx.save_for_backward(opacities)
        return _from_tiles(image, tiles, width, height)

    @staticmethod
    @once_differentiable
    @full_precision
    def backward(ctx: Any, grad_image: Tensor) -> tuple[Tensor | None, ...]:
        (opacities,) = ctx.saved_tensors
        tiles: Tiles = ctx.tiles
        pixels = tiles.size**2
        monomials = _monomials(tiles.size, grad_image)
        clamped = ctx.max_alpha / (ctx.max_alpha - 1) * (1 - 1e-6)  # odds of this and below belong to a clamped alpha
        grad_tiles = _to_tiles(grad_image, tiles)  # [T, C + 1, P]
        behind = grad_tiles.new_zeros(len(grad_tiles), pixels)  # sum of w dL/dw over the Gaussians further back
        later = torch.ones(CHUNK, CHUNK, dtype=grad_image.dtype, device=grad_image.device).triu_(1)
        grads = grad_image.new_zeros(6 + ctx.num_features, len(opacities) + 1)
        for block in reversed(ctx.blocks):
            grad = grad_tiles.index_select(0, block.tiles)
            grad_power = torch.bmm(block.colour.transpose(1, 2), grad).mul_(block.weights)  # w dL/dw so far
            chunks = grad_power.view(len(grad), -1, CHUNK, pixels)
            hidden = torch.matmul(later, chunks)  # sum over what is behind in the same chunk
            sums = hidden[:, :, 0] + chunks[:, :, 0]  # of whole chunks [B, K / CHUNK, P]
            further = sums.flip(1).cumsum(1).flip(1).add_(behind.index_select(0, block.tiles).unsqueeze(1))
            behind.index_copy_(0, block.tiles, further[:, 0])
            hidden += (further - sums).unsqueeze(2)
            # dL/dpower = alpha dL/dalpha = w dL/dw - alpha / (1 - alpha) * sum over later w dL/dw, unless alpha is clamped
            grad_power.addcmul_(block.odds, hidden.view_as(grad_power))
            grad_power = _threshold_backward(grad_power, block.odds, clamped)

            rows = grad_image.new_empty(len(grads), len(block.gaussians))
            _shape_gradients(torch.mm(monomials, grad_power.view(-1, pixels).t()), block.shape, out=rows[:6])
            rows[6:].view(ctx.num_features, len(grad), -1).copy_(
                torch.bmm(grad[:, :-1], block.weights.transpose(1, 2)).transpose(0, 1)
            )
            for row, total in zip(rows, grads):
                total.scatter_add_(0, block.gaussians, row)
        grads = grads[:, :-1]
        grad_opacities = grads[5] / opacities.clamp(min=MIN_ALPHA)
        return grads[:2], grads[2:5], grad_opacities, grads[6:], None, None, None, None


def _schedule(tiles: Tiles, transmittance: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Tiles [B] and their next Gaussians [B * K], K a multiple of ``CHUNK``, in blocks of about equal work.

    The longest lists come first, so that those of a block are about equally long. After ``ROUND`` chunks of each, tiles
    that are opaque by then (``transmittance`` [T, P] is read) are done.
    """
    device = transmittance.device
    limit = max(1, _elements(device) // (CHUNK * tiles.size**2))  # chunks in a block
    padding = len(tiles.slots)
    slots = torch.cat([tiles.slots, torch.full_like(tiles.slots[:1], tiles.num_gaussians)])
    num_chunks, active = tiles.num_chunks.sort(descending=True, stable=True)
    active = active[: int((num_chunks > 0).sum())]
    depth = 0
    while len(active):
        remaining = (tiles.num_chunks.index_select(0, active) - depth).clamp_(max=ROUND)
        start, lengths = 0, remaining.tolist()
        while start < len(lengths):
            length = lengths[start]
            stop = start + 1
            while stop < len(lengths) and (stop + 1 - start) * length <= limit and 2 * lengths[stop] > length:
                stop += 1
            part = active[start:stop]
            chunk = torch.arange(length, device=device)
            rows = (tiles.first_chunk.index_select(0, part) + depth).unsqueeze(1) + chunk
            rows = rows.masked_fill_(chunk >= remaining[start:stop, None], padding)
            yield part, slots.index_select(0, rows.view(-1)).view(-1)
            start = stop
        depth += ROUND
        active = active[tiles.num_chunks.index_select(0, active) > depth]
        active = active[transmittance.index_select(0, active).amax(1) > MIN_TRANSMITTANCE]


def _elements(device: torch.device) -> int:
    """(Gaussian, pixel) pairs at once: what stays in a core's cache, or fills a GPU."""
    return 2**18 if device.type == "cpu" else 2**24


def _table(means2d: Tensor, conics: Tensor, opacities: Tensor, features: Tensor) -> Tensor:
    """[6 + C + 1, N + 1]: mean, conic, log opacity, features, 1; the last Gaussian is padding and nowhere to be seen."""
    table = means2d.new_zeros(7 + len(features), means2d.shape[1] + 1)
    table[:2, :-1] = means2d
    table[2:5, :-1] = conics
    table[5, :-1] = opacities.clamp(min=MIN_ALPHA).log_()  # fainter ones are in no tile
    table[5, -1] = -1e4
    table[6:-1, :-1] = features
    table[-1] = 1
    return table


def _monomials(size: int, like: Tensor) -> Tensor:
    """[6, P]: 1, x, y, x^2, xy, y^2 of a tile's pixel centres, measured from the tile's centre."""
    side = torch.arange(size, dtype=like.dtype, device=like.device) - (size - 1) / 2
    x, y = side.repeat(size), side.repeat_interleave(size)
    return torch.stack([torch.ones_like(x), x, y, x * x, x * y, y * y])


def _tile_centres(tiles: Tiles, like: Tensor) -> Tensor:
    """[2, T] in pixels."""
    index = torch.arange(tiles.columns * tiles.rows, device=like.device)
    return (torch.stack([index % tiles.columns, index // tiles.columns]).to(like.dtype) + 0.5) * tiles.size


def _coefficients(shape: Tensor, centres: Tensor) -> Tensor:
    """Log alpha as a polynomial: log opacity - (p - m)^T A (p - m) / 2 in the monomials of p, measured from the tile's centre.

    Args:
        shape: [6, B * K] mean, conic, log opacity; the mean is changed to be measured from the tile's centre, too.
        centres: [2, B]

    Returns:
        [6, B * K]
    """
    shape[:2].view(2, centres.shape[1], -1).sub_(centres.unsqueeze(2))
    mx, my, a, b, c, log_opacity = shape
    out = torch.empty_like(shape)
    constant, x, y = out[0], out[1], out[2]
    torch.mul(a, mx, out=x).addcmul_(b, my)
    torch.mul(b, mx, out=y).addcmul_(c, my)
    torch.mul(mx, x, out=constant).addcmul_(my, y).mul_(-0.5).add_(log_opacity)
    torch.mul(a, -0.5, out=out[3])
    torch.neg(b, out=out[4])
    torch.mul(c, -0.5, out=out[5])
    return out


def _shape_gradients(moments: Tensor, shape: Tensor, out: Tensor) -> None:
    """Gradients of mean, conic and log opacity [6, M] from those of the polynomial's coefficients."""
    zeroth, x, y, xx, xy, yy = moments
    mx, my, a, b, c = shape
    ux = x.addcmul(zeroth, mx, value=-1)  # first moments about the mean
    uy = y.addcmul(zeroth, my, value=-1)
    torch.mul(a, ux, out=out[0]).addcmul_(b, uy)
    torch.mul(b, ux, out=out[1]).addcmul_(c, uy)
    torch.addcmul(xx, mx, x, value=-1, out=out[2]).addcmul_(mx, ux, value=-1).mul_(-0.5)
    torch.addcmul(xy, mx, y, value=-1, out=out[3]).addcmul_(my, ux, value=-1).neg_()
    torch.addcmul(yy, my, y, value=-1, out=out[4]).addcmul_(my, uy, value=-1).mul_(-0.5)
    out[5] = zeroth


def _inside(tiles: Tiles, width: int, height: int, like: Tensor) -> Tensor:
    """[T, P]: 1 at pixels of the image, 0 at those of tiles that stick out of it."""
    return _to_tiles(like.new_ones(1, height, width), tiles).squeeze(1)


def _to_tiles(image: Tensor, tiles: Tiles) -> Tensor:
    """[C, H, W] -> [T, C, P], with zeros outside the image."""
    channels, height, width = image.shape
    right, bottom = tiles.columns * tiles.size - width, tiles.rows * tiles.size - height
    padded = torch.nn.functional.pad(image, (0, right, 0, bottom))
    parts = padded.view(channels, tiles.rows, tiles.size, tiles.columns, tiles.size)
    return parts.permute(1, 3, 0, 2, 4).reshape(tiles.rows * tiles.columns, channels, -1)


def _from_tiles(image: Tensor, tiles: Tiles, width: int, height: int) -> Tensor:
    """[T, C, P] -> [C, H, W]"""
    parts = image.view(tiles.rows, tiles.columns, -1, tiles.size, tiles.size).permute(2, 0, 3, 1, 4)
    return parts.reshape(image.shape[1], tiles.rows * tiles.size, -1)[:, :height, :width]
