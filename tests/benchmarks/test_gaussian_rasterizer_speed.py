"""The rasteriser, forward and backward on one core, beside the usual one in plain torch: 16x16 tiles one after the other,
differentiated by autograd. (gsplat's own rasteriser in torch needs a CUDA kernel for its lists.)

    pytest tests/benchmarks/test_gaussian_rasterizer_speed.py --benchmark-only
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from adlbench.methods.nn.gaussian_rasterizer import rasterize

pytest.importorskip("pytest_benchmark")

CASES = {"10k at 128x128": (10_000, 128, 4.0), "20k at 100x100": (20_000, 100, 1.5)}  # Gaussians, side, size in pixels
TILE = 16


def scene(count: int, side: int, size: float) -> dict[str, Tensor]:
    """Round Gaussians with standard deviations from 0.55 pixels, most of them near that."""
    generator = torch.Generator().manual_seed(0)
    means = torch.rand(2, count, generator=generator) * side
    variances = (0.55 + torch.rand(count, generator=generator) ** 3 * size).square().expand(2, -1)
    conics = torch.stack([1 / variances[0], torch.zeros(count), 1 / variances[1]])
    return {
        "means2d": means.requires_grad_(),
        "conics": conics.requires_grad_(),
        "variances": variances,
        "opacities": torch.rand(count, generator=generator).requires_grad_(),
        "features": torch.rand(3, count, generator=generator).requires_grad_(),
        "depths": torch.rand(count, generator=generator),
    }


def by_tiles(gaussians: dict[str, Tensor], side: int) -> Tensor:
    """[3, H, W]: each tile composites every Gaussian that may touch it."""
    order = torch.argsort(gaussians["depths"])
    means, conics, opacities, features = (
        gaussians[name][..., order] for name in ("means2d", "conics", "opacities", "features")
    )
    reach = (2 * (opacities.detach() * 255).log()).clamp(min=0)
    half = (reach * gaussians["variances"][:, order]).sqrt()
    low, high = (means - half).detach(), (means + half).detach()
    rows = []
    for top in range(0, side, TILE):
        row = []
        for left in range(0, side, TILE):
            right, bottom = min(left + TILE, side), min(top + TILE, side)
            meets = (high[0] > left) & (low[0] < right) & (high[1] > top) & (low[1] < bottom)
            own = (meets & (reach > 0)).nonzero().squeeze(1)
            y, x = torch.meshgrid(torch.arange(top, bottom) + 0.5, torch.arange(left, right) + 0.5, indexing="ij")
            dx = x.reshape(-1, 1) - means[0, own]
            dy = y.reshape(-1, 1) - means[1, own]
            a, b, c = conics[:, own]
            alpha = opacities[own] * torch.exp(-0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy)
            alpha = torch.where(alpha >= 1 / 255, alpha.clamp(max=0.99), 0.0)
            behind = torch.cumprod(1 - alpha, 1)
            before = torch.cat([torch.ones_like(behind[:, :1]), behind[:, :-1]], 1)
            weights = torch.where(behind >= 1e-4, alpha * before, 0.0)
            row.append((features[:, own] @ weights.t()).view(3, bottom - top, right - left))
        rows.append(torch.cat(row, 2))
    return torch.cat(rows, 1)


def ours(gaussians: dict[str, Tensor], side: int) -> Tensor:
    return rasterize(**gaussians, width=side, height=side).features


def both_passes(render: Callable[[dict[str, Tensor], int], Tensor], gaussians: dict[str, Tensor], side: int) -> None:
    for value in gaussians.values():
        value.grad = None
    render(gaussians, side).square().sum().backward()


@pytest.mark.parametrize("render", [ours, by_tiles], ids=["ours", "tiles by autograd"])
@pytest.mark.parametrize("case", CASES)
def test_forward_and_backward(benchmark: Any, case: str, render: Callable[[dict[str, Tensor], int], Tensor]) -> None:
    count, side, size = CASES[case]
    benchmark.group = case
    benchmark.pedantic(both_passes, args=(render, scene(count, side, size), side), rounds=3, warmup_rounds=1)


@pytest.mark.parametrize("case", CASES)
def test_it_is_several_times_faster_for_the_same_image(case: str) -> None:
    """Paired rounds of CPU time on one core: their ratio holds on a busy machine where absolute times do not."""
    count, side, size = CASES[case]
    gaussians = scene(count, side, size)
    with torch.no_grad():
        torch.testing.assert_close(ours(gaussians, side), by_tiles(gaussians, side), atol=1e-5, rtol=0)
    ratios = []
    for _ in range(3):
        spent = []
        for render in (ours, by_tiles):
            begin = time.process_time()
            both_passes(render, gaussians, side)
            spent.append(time.process_time() - begin)
        ratios.append(spent[1] / spent[0])
    assert statistics.median(ratios) > 3, f"ratios {ratios}"
