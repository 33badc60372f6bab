"""The tile rasteriser against one that looks at every Gaussian at every pixel, and the rules of the compositing."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from adlbench.benchmark.api import DataError
from adlbench.methods.nn import gaussian_rasterizer
from adlbench.methods.nn.gaussian_rasterizer import Raster, rasterize
from adlbench.methods.nn.gaussian_tiles import bin_gaussians, pixel_boxes


class Scene(NamedTuple):
    means2d: Tensor
    conics: Tensor
    variances: Tensor
    opacities: Tensor
    features: Tensor
    depths: Tensor


def scene(
    count: int, width: int, height: int, dtype: torch.dtype = torch.float64, size: float = 4.0, opacity: float = 1.0
) -> Scene:
    """Ellipses of all shapes, some beyond the border, with opacities up to ``opacity``."""
    generator = torch.Generator().manual_seed(count)

    def random(*shape: int) -> Tensor:
        return torch.rand(*shape, dtype=torch.float64, generator=generator)

    means = torch.stack([random(count) * (width + 10) - 5, random(count) * (height + 10) - 5])
    deviation, angle = 0.55 + random(2, count) ** 3 * size, random(count) * 2 * math.pi
    turn = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    covariance = torch.einsum("ijn,jn,kjn->ikn", turn, deviation**2, turn)
    variances = torch.stack([covariance[0, 0], covariance[1, 1]])
    determinant = variances[0] * variances[1] - covariance[0, 1] ** 2
    conics = torch.stack([variances[1], -covariance[0, 1], variances[0]]) / determinant
    parts = (means, conics, variances, random(count) * opacity, random(3, count), random(count))
    return Scene(*(part.to(dtype) for part in parts))


def brute_force(gaussians: Scene, width: int, height: int, max_alpha: float = 0.99) -> tuple[Tensor, Tensor]:
    """Section 6 written out, differentiated by autograd: O(pixels x Gaussians)."""
    order = torch.argsort(gaussians.depths, stable=True)
    means, (a, b, c) = gaussians.means2d[:, order], gaussians.conics[:, order]
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    dx = x.reshape(-1, 1).to(means) - means[0]  # [P, N]
    dy = y.reshape(-1, 1).to(means) - means[1]
    alpha = gaussians.opacities[order] * torch.exp(-0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy)
    alpha = alpha.clamp(max=max_alpha)
    alpha = torch.where(alpha >= 1 / 255, alpha, 0.0)
    behind = torch.cumprod(1 - alpha, 1)
    before = torch.cat([torch.ones_like(behind[:, :1]), behind[:, :-1]], 1)
    weights = torch.where(behind >= 1e-4, alpha * before, 0.0)
    return (gaussians.features[:, order] @ weights.t()).view(-1, height, width), weights.sum(1).view(height, width)


def with_gradients(gaussians: Scene) -> Scene:
    free = ("means2d", "conics", "opacities", "features")
    return gaussians._replace(**{name: getattr(gaussians, name).clone().requires_grad_() for name in free})


def gradients(gaussians: Scene, features: Tensor, opacity: Tensor) -> list[Tensor]:
    """Of a random linear functional of the image."""
    generator = torch.Generator().manual_seed(5)
    pull = torch.randn(features.shape, dtype=torch.float64, generator=generator).to(features)
    push = torch.randn(opacity.shape, dtype=torch.float64, generator=generator).to(features)
    inputs = (gaussians.means2d, gaussians.conics, gaussians.opacities, gaussians.features)
    return list(torch.autograd.grad((features * pull).sum() + (opacity * push).sum(), inputs))


CASES = [
    ("torch", torch.float64, 1e-12, None),
    *[("torch", torch.float32, 1e-5, size) for size in (None, 4, 8, 16)],
    ("numba", torch.float32, 1e-5, None),
]


@pytest.mark.parametrize(("backend", "dtype", "tolerance", "tile_size"), CASES)
def test_image_and_gradients_equal_brute_force(
    backend: str, dtype: torch.dtype, tolerance: float, tile_size: int | None
) -> None:
    """1,500 Gaussians on 37 x 29 pixels: no size of tile divides it, some pixels become opaque, some alphas are clamped."""
    pytest.importorskip(backend)
    width, height = 37, 29
    ours, theirs = (with_gradients(scene(1500, width, height, dtype)) for _ in range(2))
    raster = rasterize(*ours, width, height, tile_size=tile_size, backend=backend)
    features, opacity = brute_force(theirs, width, height)
    torch.testing.assert_close(raster.features, features, atol=tolerance, rtol=0)
    torch.testing.assert_close(raster.opacity, opacity, atol=tolerance, rtol=0)
    for got, wanted in zip(gradients(ours, *raster[:2]), gradients(theirs, features, opacity)):
        torch.testing.assert_close(got, wanted, atol=tolerance * float(wanted.abs().max()), rtol=0)


def test_long_lists_are_composited_in_rounds_and_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """900 faint Gaussians at one place and 20 elsewhere, in blocks of one chunk or little more."""
    monkeypatch.setattr(gaussian_rasterizer, "_elements", lambda device: 4096)
    monkeypatch.setattr(gaussian_rasterizer, "ROUND", 4)
    gaussians = scene(920, 24, 24, opacity=0.05)
    gaussians.means2d[:, :900] = 6 + gaussians.means2d[:, :900] / 20
    ours, theirs = with_gradients(gaussians), with_gradients(gaussians)
    raster = rasterize(*ours, 24, 24, tile_size=8)
    features, opacity = brute_force(theirs, 24, 24)
    torch.testing.assert_close(raster.features, features)
    for got, wanted in zip(gradients(ours, *raster[:2]), gradients(theirs, features, opacity)):
        torch.testing.assert_close(got, wanted, atol=1e-12 * float(wanted.abs().max()), rtol=0)


def test_gradcheck() -> None:
    """Wide Gaussians, away from the thresholds at which the image jumps."""
    gaussians = scene(5, 6, 5, opacity=0.3)
    conics = gaussians.conics * 0.02
    variances = gaussians.variances / 0.02
    middle = torch.tensor([[3.0], [2.5]], dtype=torch.float64)
    inputs = (middle + 0.3 * (gaussians.means2d - middle), conics, gaussians.opacities + 0.1, gaussians.features)

    def outputs(means2d: Tensor, conics: Tensor, opacities: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        return rasterize(means2d, conics, variances, opacities, features, gaussians.depths, 6, 5)[:2]

    assert torch.autograd.gradcheck(outputs, tuple(x.clone().requires_grad_() for x in inputs))


# ---------------------------------------------------------------------------------------------------------- the rules
def stack(opacities: list[float], features: list[float], depths: list[float] | None = None, size: int = 1) -> Scene:
    """Very wide Gaussians on top of each other: alpha is the opacity at every pixel. Nearest first by default."""
    count = len(opacities)
    ones = torch.ones(count, dtype=torch.float64)
    return Scene(
        means2d=torch.full((2, count), size / 2, dtype=torch.float64),
        conics=torch.stack([ones, 0 * ones, ones]) * 1e-12,
        variances=torch.full((2, count), 1e12, dtype=torch.float64),
        opacities=torch.tensor(opacities, dtype=torch.float64),
        features=torch.tensor([features], dtype=torch.float64),
        depths=torch.arange(count).double() if depths is None else torch.tensor(depths, dtype=torch.float64),
    )


def value(gaussians: Scene, **options: float) -> tuple[float, float]:
    raster = rasterize(*gaussians, 1, 1, **options)  # type: ignore[arg-type]
    return float(raster.features), float(raster.opacity)


def test_nearest_first_whatever_the_order_in_memory() -> None:
    for depths in ([1.0, 2.0], [-2.0, -1.0], [-1.0, 0.5]):
        assert value(stack([0.5, 0.5], [1.0, 3.0], depths)) == pytest.approx((0.5 + 0.25 * 3, 0.75))
        assert value(stack([0.5, 0.5], [3.0, 1.0], depths[::-1])) == pytest.approx((0.5 + 0.25 * 3, 0.75))


def test_equal_depths_keep_their_order() -> None:
    for dtype in (torch.float32, torch.float64):
        gaussians = Scene(*(x.to(dtype) for x in stack([0.5, 0.5], [1.0, 3.0], [1.0, 1.0])))
        assert value(gaussians) == pytest.approx((1.25, 0.75))


def test_alpha_below_one_in_255_is_skipped() -> None:
    assert value(stack([0.99 / 255], [1.0])) == (0.0, 0.0)
    assert value(stack([1.01 / 255], [1.0])) == pytest.approx((1.01 / 255, 1.01 / 255))


def test_alpha_is_at_most_0_99_unless_told_otherwise_and_has_no_gradient_there() -> None:
    assert value(stack([1.0], [1.0]))[1] == pytest.approx(0.99)
    assert value(stack([1.0], [1.0]), max_alpha=0.999)[1] == pytest.approx(0.999)
    gaussians = with_gradients(stack([1.0, 0.5], [1.0, 2.0]))
    raster = rasterize(*gaussians, 1, 1)
    opacity, feature = torch.autograd.grad(raster.features.sum(), (gaussians.opacities, gaussians.features))
    assert opacity.tolist() == pytest.approx([0.0, 0.01 * 2])
    assert feature[0].tolist() == pytest.approx([0.99, 0.01 * 0.5])


def test_a_pixel_is_done_before_transmittance_falls_below_1e_4() -> None:
    """0.01, 0.0002, then 0.00004 would be too dark: the third is left out, and so is what comes after it, however faint."""
    wanted = 0.99 + 0.01 * 0.98
    assert value(stack([0.99, 0.98, 0.8, 0.01], [1.0, 1.0, 1.0, 1.0])) == pytest.approx((wanted, wanted), abs=1e-12)
    assert value(stack([0.99, 0.98, 0.4], [1.0, 1.0, 1.0]))[1] == pytest.approx(wanted + 0.0002 * 0.4, abs=1e-12)


def test_pixel_centres_are_at_one_half() -> None:
    gaussians = stack([0.5], [1.0])._replace(
        means2d=torch.tensor([[2.5], [1.5]], dtype=torch.float64),
        conics=torch.tensor([[1.0], [0.0], [1.0]], dtype=torch.float64),
        variances=torch.ones(2, 1, dtype=torch.float64),
    )
    opacity = rasterize(*gaussians, 5, 4).opacity
    assert float(opacity[1, 2]) == pytest.approx(0.5)
    assert float(opacity[1, 3]) == pytest.approx(0.5 * math.exp(-0.5))
    assert float(opacity[2, 1]) == pytest.approx(0.5 * math.exp(-1.0))


def test_nothing_to_draw() -> None:
    gaussians = scene(3, 10, 10)
    empty = Scene(*(x[..., :0] for x in gaussians))
    hidden = gaussians._replace(variances=torch.zeros_like(gaussians.variances))
    for nothing in (empty, hidden):
        free = with_gradients(nothing)
        raster = rasterize(*free, 10, 7)
        assert raster.features.shape == (3, 7, 10)
        assert not raster.features.any()
        assert not raster.opacity.any()
        assert not raster.visible.any()
        assert all(not grad.any() for grad in gradients(free, *raster[:2]))


def small(backend: str, gaussians: Scene, width: int, height: int) -> None:
    """Brute force in float32, gradients included."""
    ours, theirs = with_gradients(gaussians), with_gradients(gaussians)
    raster = rasterize(*ours, width, height, backend=backend)
    features, opacity = brute_force(theirs, width, height)
    torch.testing.assert_close(raster.features, features, atol=1e-5, rtol=0)
    torch.testing.assert_close(raster.opacity, opacity, atol=1e-5, rtol=0)
    for got, wanted in zip(gradients(ours, *raster[:2]), gradients(theirs, features, opacity)):
        torch.testing.assert_close(got, wanted, atol=1e-6 + 1e-5 * float(wanted.abs().max()), rtol=0)


@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_any_number_of_features_and_the_rules_in_float32(backend: str, channels: int) -> None:
    """Stacks that end a pixel, are clamped, or are too faint; on one pixel and on images smaller than a tile."""
    pytest.importorskip(backend)
    for opacities in ([1.0, 0.5], [0.98, 0.985, 0.8, 0.01], [0.98, 0.985, 0.4], [0.99 / 255, 0.7], [1.01 / 255]):
        values = stack(opacities, [1.0] * len(opacities))
        features = torch.rand(channels, len(opacities), generator=torch.Generator().manual_seed(1))
        for size in (1, 3):
            like = values._replace(means2d=values.means2d * size, features=features)
            small(backend, Scene(*(x.float() for x in like)), size, size)


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_pixel_sized_thin_and_far_away_ones(backend: str) -> None:
    """One needle across the image, one dot, one that ends just outside, duplicates at equal depth."""
    pytest.importorskip(backend)
    gaussians = scene(6, 20, 12, torch.float32)
    gaussians.means2d[:] = torch.tensor([[10.0, 3.2, -6, 25, 10, 10], [6.0, 3.9, 6, 6, 6, 6]])
    variances = torch.tensor([[400.0, 0.3, 4, 4, 4, 4], [0.31, 0.3, 4, 4, 4, 4]])
    conics = torch.stack([1 / variances[0], torch.zeros(6), 1 / variances[1]])
    small(backend, gaussians._replace(variances=variances, conics=conics, depths=torch.ones(6)), 20, 12)


def test_nothing_to_draw_with_numba() -> None:
    pytest.importorskip("numba")
    gaussians = scene(3, 10, 10, torch.float32)
    for nothing in (Scene(*(x[..., :0] for x in gaussians)), gaussians._replace(variances=torch.zeros(2, 3))):
        free = with_gradients(nothing)
        raster = rasterize(*free, 10, 7, backend="numba")
        assert raster.features.shape == (3, 7, 10)
        assert not raster.features.any()
        assert not raster.opacity.any()
        assert all(not grad.any() for grad in gradients(free, *raster[:2]))


def test_half_precision_is_computed_in_float32() -> None:
    gaussians = scene(50, 20, 20, torch.float32)
    half = gaussians._replace(opacities=gaussians.opacities.bfloat16(), features=gaussians.features.bfloat16())
    raster = rasterize(*half, 20, 20)
    assert raster.features.dtype == raster.opacity.dtype == torch.float32
    rounded = gaussians._replace(opacities=half.opacities.float(), features=half.features.float())
    assert torch.equal(raster.features, rasterize(*rounded, 20, 20).features)


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_autocast_changes_neither_the_image_nor_its_gradient(backend: str) -> None:
    pytest.importorskip(backend)
    results = []
    for enabled in (True, False):
        gaussians = with_gradients(scene(200, 20, 20, torch.float32))
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            raster = rasterize(*gaussians, 20, 20, backend=backend)
            results.append([*raster, *gradients(gaussians, *raster[:2])])
    assert all(map(torch.equal, *results))


@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize(
    ("name", "bad"),
    [*((name, bad) for name in ("means2d", "conics") for bad in (math.nan, math.inf)), ("opacities", math.nan)],
)
def test_what_is_not_finite_is_not_drawn(backend: str, name: str, bad: float) -> None:
    pytest.importorskip(backend)
    gaussians = scene(40, 20, 20, torch.float32)
    others = torch.arange(40) != 7
    wanted = rasterize(*(x[..., others] for x in gaussians), 20, 20, backend=backend)
    broken = getattr(gaussians, name).clone()
    broken[..., 7] = bad
    free = with_gradients(gaussians._replace(**{name: broken}))
    raster = rasterize(*free, 20, 20, backend=backend)
    torch.testing.assert_close(raster.features, wanted.features)
    for grad in gradients(free, *raster[:2]):
        assert bool(grad[..., others].isfinite().all())


def test_wrong_use_is_named() -> None:
    gaussians = scene(5, 10, 10)
    with pytest.raises(DataError, match=r"\[5, 5, 5, 4, 5, 5\] Gaussians"):
        rasterize(*gaussians._replace(opacities=gaussians.opacities[:4]), 10, 10)
    with pytest.raises(DataError, match="on 0 x 10 pixels"):
        rasterize(*gaussians, 0, 10)


def test_visible_are_those_that_reach_one_in_255_at_a_pixel() -> None:
    gaussians = scene(300, 20, 20)
    raster = rasterize(*gaussians, 20, 20)
    for i in range(300):
        alone = Scene(*(x[..., i : i + 1] for x in gaussians))
        if bool(brute_force(alone, 20, 20)[1].any()):
            assert raster.visible[i]
    assert 0 < int(raster.visible.sum()) < 300


def test_without_gradients_the_same_image_and_nothing_kept() -> None:
    gaussians = with_gradients(scene(200, 20, 20, torch.float32))
    image = rasterize(*gaussians, 20, 20)
    with torch.no_grad():
        again: Raster = rasterize(*gaussians, 20, 20)
    assert torch.equal(image.features, again.features)
    assert not again.features.requires_grad


def test_same_numbers_to_the_bit() -> None:
    gaussians = with_gradients(scene(500, 30, 30, torch.float32))
    first, second = (gradients(gaussians, *rasterize(*gaussians, 30, 30)[:2]) for _ in range(2))
    assert all(map(torch.equal, first, second))


# ---------------------------------------------------------------------------------------------------------- the tiles
def test_keys_of_tile_and_depth_beyond_31_bits_sort_as_smaller_ones_do() -> None:
    """65,536 tiles times 34,000 Gaussians are 2^31.05 keys. Without the far ones they are fewer; the others' lists stay."""
    side, count, near = 256, 34_000, 32_000
    generator = torch.Generator().manual_seed(0)
    means = torch.rand(2, count, generator=generator) * side
    conics = torch.tensor([[1.0], [0.0], [1.0]]).expand(3, count) / 0.6
    reach, depths = torch.full((count,), 2.0), torch.arange(count).float()
    variances = torch.full((2, count), 0.6)

    def lists(number: int) -> Tensor:
        """Pairs (tile, Gaussian) in the order of the tiles' lists, without those beyond ``near``."""
        some = means[:, :number], conics[:, :number], reach[:number]
        boxes = pixel_boxes(some[0], variances[:, :number], some[2], side, side)
        tiles = bin_gaussians(*some, boxes, depths[:number], side, side, size=1)
        assert tiles.columns * tiles.rows == side * side
        tile = torch.repeat_interleave(torch.arange(side * side), tiles.num_chunks)
        pairs = torch.stack([tile[:, None].expand_as(tiles.slots), tiles.slots], -1).reshape(-1, 2)
        return pairs[pairs[:, 1] < near]

    assert side * side * near < 2**31 <= side * side * count
    pairs = lists(count)
    assert len(pairs) > count
    assert torch.equal(pairs, lists(near))


@pytest.mark.parametrize("size", [4, 8, 16])
def test_a_tile_lists_all_that_touch_it_front_to_back_and_little_else(size: int) -> None:
    width, height, count = 45, 30, 400
    gaussians = scene(count, width, height)
    reach = 2 * (gaussians.opacities * 255).log()
    boxes = pixel_boxes(gaussians.means2d, gaussians.variances, reach, width, height)
    tiles = bin_gaussians(gaussians.means2d, gaussians.conics, reach, boxes, gaussians.depths, width, height, size)
    assert (tiles.columns, tiles.rows) == (-(-width // size), -(-height // size))
    columns, rows = tiles.columns * size, tiles.rows * size  # whole tiles: border tiles list what touches outside, too
    a, b, c = gaussians.conics
    y, x = torch.meshgrid(torch.arange(rows) + 0.5, torch.arange(columns) + 0.5, indexing="ij")
    dx, dy = (p.reshape(-1, 1) - m for p, m in zip((x, y), gaussians.means2d))
    touched = (a * dx * dx + 2 * b * dx * dy + c * dy * dy <= reach).view(rows, columns, count)
    inside = touched[:height, :width]
    listed = 0
    for tile in range(tiles.columns * tiles.rows):
        top, left = size * (tile // tiles.columns), size * (tile % tiles.columns)
        own = tiles.slots[tiles.first_chunk[tile] :][: tiles.num_chunks[tile]].flatten()
        own = own[own < count]
        assert (gaussians.depths[own].diff() >= 0).all()
        needed = inside[top : top + size, left : left + size].flatten(0, 1).any(0).nonzero().flatten()
        assert set(needed.tolist()) <= set(own.tolist())
        listed += len(own)
    pairs = touched.view(tiles.rows, size, tiles.columns, size, count).any(3).any(1).sum()
    assert listed <= 1.3 * int(pairs) + 20
