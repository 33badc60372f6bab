"""gsplat's ``_rasterization`` in plain torch without its CUDA library: the pieces that it takes from there, put in their place.

Three of them exist as torch functions in gsplat itself; the list of (Gaussian, pixel) pairs and nerfacc's packed product
are written out here, by the rules of gsplat's kernels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor


def pairs_in_range(
    start: int,
    end: int,
    transmittances: Tensor,
    means2d: Tensor,
    conics: Tensor,
    opacities: Tensor,
    width: int,
    height: int,
    size: int,
    offsets: Tensor,
    members: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gaussian, pixel and image of every contribution, by pixel, nearest first (rasterize_to_indices_3dgs)."""
    block = size * size
    bounds = [*offsets.flatten().tolist(), len(members)]
    gaussians, pixels = [], []
    for tile in range(offsets.shape[-1] * offsets.shape[-2]):
        own = members[bounds[tile] : bounds[tile + 1]][start * block : end * block].long()
        top, left = tile // offsets.shape[-1] * size, tile % offsets.shape[-1] * size
        y, x = torch.meshgrid(
            torch.arange(top, min(top + size, height)), torch.arange(left, min(left + size, width)), indexing="ij"
        )
        pixel = (y * width + x).flatten()
        dx = x.reshape(-1, 1) + 0.5 - means2d[0, own, 0]
        dy = y.reshape(-1, 1) + 0.5 - means2d[0, own, 1]
        a, b, c = conics[0, own].t()
        alpha = (opacities[0, own] * torch.exp(-0.5 * (a * dx**2 + c * dy**2) - b * dx * dy)).clamp(max=0.999)
        alpha = torch.where(alpha >= 1 / 255, alpha, 0.0)
        behind = transmittances.flatten()[pixel, None] * torch.cumprod(1 - alpha, 1)
        which, k = ((alpha > 0) & (behind > 1e-4)).nonzero().unbind(1)
        gaussians.append(own[k])
        pixels.append(pixel[which])
    pixel, order = torch.cat(pixels).sort(stable=True)
    return torch.cat(gaussians)[order], pixel, torch.zeros_like(pixel)


def weight_from_alpha(alphas: Tensor, ray_indices: Tensor, n_rays: int) -> tuple[Tensor, Tensor]:
    log = torch.log1p(-alphas.double())
    before = torch.cat([log.new_zeros(1), log.cumsum(0)])
    counts = torch.bincount(ray_indices, minlength=n_rays)
    first = (counts.cumsum(0) - counts)[ray_indices]
    transmittance = (before[:-1] - before[first]).exp().to(alphas.dtype)
    return alphas * transmittance, transmittance


@contextmanager
def gsplat_on_cpu() -> Iterator[Any]:
    """``gsplat.rendering._rasterization``, able to run."""
    import gsplat.cuda._torch_impl as reference
    import gsplat.cuda._wrapper as wrapper
    import nerfacc
    from gsplat import rendering

    def tiles(means2d: Tensor, radii: Tensor, depths: Tensor, *sizes: int, **_: Any) -> Any:
        return reference._isect_tiles(means2d, radii, depths, *sizes)

    def harmonics(degree: int, directions: Tensor, coefficients: Tensor, masks: Tensor | None = None) -> Tensor:
        return reference._spherical_harmonics(degree, directions, coefficients)

    with (
        mock.patch.object(rendering, "isect_tiles", tiles),
        mock.patch.object(rendering, "isect_offset_encode", reference._isect_offset_encode),
        mock.patch.object(rendering, "spherical_harmonics", harmonics),
        mock.patch.object(wrapper, "rasterize_to_indices_in_range", pairs_in_range),
        mock.patch.object(nerfacc, "render_weight_from_alpha", weight_from_alpha),
    ):
        yield rendering._rasterization
