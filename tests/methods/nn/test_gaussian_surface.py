"""Surface blending against every splat at every pixel, and what it is for."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from adlbench.methods.nn.gaussian_rasterizer import rasterize


def splats(count: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.rand(*shape, dtype=torch.float64, generator=generator)

    variances = (1 + 3 * random(2, count)).square()
    return {
        "means2d": random(2, count) * torch.tensor([[21.0], [13.0]]),
        "conics": torch.stack([1 / variances[0], torch.zeros(count, dtype=torch.float64), 1 / variances[1]]),
        "variances": variances,
        "opacities": random(count),
        "features": random(2, count),
        "depths": random(count) * 3,
    }


def every_pixel(s: dict[str, Tensor], width: int, height: int, tolerance: float) -> tuple[Tensor, Tensor]:
    features = torch.zeros(len(s["features"]), height, width, dtype=torch.float64)
    opacity = torch.zeros(height, width, dtype=torch.float64)
    for y in range(height):
        for x in range(width):
            dx, dy = x + 0.5 - s["means2d"][0], y + 0.5 - s["means2d"][1]
            a, b, c = s["conics"]
            alpha = (s["opacities"] * torch.exp(-0.5 * (a * dx**2 + c * dy**2) - b * dx * dy)).clamp(max=0.99)
            seen = alpha >= 1 / 255
            if seen.any():
                near = seen & (s["depths"] <= s["depths"][seen].min() + tolerance)
                opacity[y, x] = 1 - (1 - alpha[near]).prod()
                mean = (s["features"][:, near] * alpha[near]).sum(1) / alpha[near].sum()
                features[:, y, x] = mean * opacity[y, x]
    return features, opacity


@pytest.mark.parametrize("tolerance", [0.0, 0.4, 10.0])
def test_equals_every_splat_at_every_pixel(tolerance: float) -> None:
    made = splats(80)
    raster = rasterize(**made, width=21, height=13, surface_tolerance=tolerance)
    features, opacity = every_pixel(made, 21, 13, tolerance)
    torch.testing.assert_close(raster.features, features)
    torch.testing.assert_close(raster.opacity, opacity)


def test_gradients() -> None:
    made = splats(6)
    free = tuple(made[name].requires_grad_() for name in ("means2d", "conics", "opacities", "features"))

    def blend(means2d: Tensor, conics: Tensor, opacities: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        fixed = {"variances": made["variances"] * 9, "depths": made["depths"], "width": 5, "height": 4}
        return rasterize(means2d, conics * 0.1, opacities=opacities, features=features, surface_tolerance=1.0, **fixed)[
            :2
        ]

    assert torch.autograd.gradcheck(blend, free)


def test_colour_does_not_depend_on_how_many_splats_overlap_nor_on_their_order() -> None:
    """The mean of two equal weights, whichever is in front; compositing would prefer the one in front."""
    wide = torch.full((2, 3), 1e6, dtype=torch.float64)
    made = {
        "means2d": torch.full((2, 3), 0.5, dtype=torch.float64),
        "conics": torch.tensor([[1e-6], [0], [1e-6]], dtype=torch.float64).expand(3, 3).contiguous(),
        "variances": wide,
        "opacities": torch.full((3,), 0.5, dtype=torch.float64),
        "features": torch.tensor([[1.0, 3.0, 100.0]], dtype=torch.float64),
        "depths": torch.tensor([1.0, 1.1, 9.0], dtype=torch.float64),
    }
    for depths in ([1.0, 1.1, 9.0], [1.1, 1.0, 9.0]):
        made["depths"] = torch.tensor(depths, dtype=torch.float64)
        raster = rasterize(**made, width=1, height=1, surface_tolerance=0.2)
        assert float(raster.opacity) == pytest.approx(0.75, abs=1e-6)
        assert float(raster.features / raster.opacity) == pytest.approx(2.0)  # the third one is hidden
    assert math.isfinite(float(rasterize(**made, width=1, height=1).features))


def test_nothing_to_blend() -> None:
    empty = {name: value[..., :0] for name, value in splats(2).items()}
    raster = rasterize(**empty, width=5, height=3, surface_tolerance=1.0)
    assert raster.features.shape == (2, 3, 5)
    assert not raster.opacity.any()


def test_one_splat_equal_depths_and_half_precision() -> None:
    one = {name: value[..., :1] for name, value in splats(1).items()}
    raster = rasterize(**one, width=21, height=13, surface_tolerance=1.0)
    seen = raster.opacity > 0
    torch.testing.assert_close(
        (raster.features / raster.opacity)[:, seen], one["features"].expand(2, int(seen.sum())), atol=1e-12, rtol=0
    )
    twice = {name: torch.cat([value, value], -1) for name, value in one.items()}
    both = rasterize(**twice, width=21, height=13, surface_tolerance=0.0)
    torch.testing.assert_close(both.opacity, 1 - (1 - raster.opacity).square())
    half = {name: value.bfloat16() for name, value in splats(5).items()}
    exact = rasterize(**{name: value.float() for name, value in half.items()}, width=9, height=5, surface_tolerance=1.0)
    torch.testing.assert_close(
        rasterize(**half, width=9, height=5, surface_tolerance=1.0).features.float(), exact.features, atol=1e-2, rtol=0
    )
