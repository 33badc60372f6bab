"""Splats blended as one surface (Zwicker et al. 2001, section 5), in place of alpha compositing through a volume.

At a pixel the splats within a tolerance of the nearest one belong to the same surface: they are averaged by their weights,
in no order, and what is behind them is not seen. Differentiated by autograd; which splats belong to the surface is fixed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from adlbench.methods.nn.gaussian_tiles import Tiles


def blend_surface(
    means2d: Tensor,
    conics: Tensor,
    opacities: Tensor,
    features: Tensor,
    depths: Tensor,
    tiles: Tiles,
    image_size: tuple[int, int],
    max_alpha: float,
    tolerance: float,
) -> Tensor:
    """[C + 1, H, W]: the weighted mean of the features times opacity, and opacity.

    A weight is alpha as in ``gaussian_rasterizer.rasterize``, which has the arguments; opacity is 1 - product of (1 - alpha)
    over the splats of the surface, so that a silhouette fades out.

    Args:
        tolerance: how far behind the nearest splat's depth the surface reaches, world units.
    """
    width, height = image_size
    size, number = tiles.size, tiles.columns * tiles.rows
    gaussian = tiles.slots.flatten()
    tile = torch.repeat_interleave(torch.arange(number, device=gaussian.device), tiles.num_chunks)
    tile = tile.repeat_interleave(tiles.slots.shape[1])
    tile, gaussian = (x[gaussian < tiles.num_gaussians] for x in (tile, gaussian))

    side = torch.arange(size, device=means2d.device)
    column = (tile % tiles.columns * size).unsqueeze(1) + side.repeat(size)  # [Q, P]
    row = (torch.div(tile, tiles.columns, rounding_mode="floor") * size).unsqueeze(1) + side.repeat_interleave(size)
    dx = column + 0.5 - means2d[0, gaussian].unsqueeze(1)
    dy = row + 0.5 - means2d[1, gaussian].unsqueeze(1)
    a, b, c = conics[:, gaussian].unsqueeze(2)
    alpha = opacities[gaussian].unsqueeze(1) * torch.exp(-0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy)
    alpha = alpha.clamp(max=max_alpha)

    seen = alpha.detach() >= 1 / 255
    depth = depths.detach()[gaussian].unsqueeze(1).expand_as(seen)
    nearest = torch.full((number, size * size), torch.inf, dtype=depths.dtype, device=depths.device)
    nearest.scatter_reduce_(0, tile.unsqueeze(1).expand_as(seen), depth.masked_fill(~seen, torch.inf), "amin")
    weights = torch.where(seen & (depth <= nearest[tile] + tolerance), alpha, 0.0)

    zeros = alpha.new_zeros(number, size * size)
    total = zeros.index_add(0, tile, weights)
    opacity = -torch.expm1(zeros.index_add(0, tile, torch.log1p(-weights)))
    share = opacity / total.clamp(min=1e-12)
    rows = [zeros.index_add(0, tile, weights * value[gaussian].unsqueeze(1)) * share for value in features]
    image = torch.stack([*rows, opacity]).view(-1, tiles.rows, tiles.columns, size, size).transpose(2, 3)
    return image.reshape(len(features) + 1, tiles.rows * size, -1)[:, :height, :width]
