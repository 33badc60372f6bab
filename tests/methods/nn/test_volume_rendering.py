"""Volume rendering against closed forms and against a plain re-statement of the quadrature in double precision."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from adlbench.methods.nn import volume_rendering
from adlbench.methods.nn.volume_rendering import (
    INFINITE,
    accumulate,
    composite,
    distortion,
    expected_depth,
    interval_lengths,
    sample_pdf,
    stratified_depths,
)


@pytest.fixture(autouse=True, params=["compiled", "plain"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test with numba's loops, where it is installed, and with plain torch."""
    if request.param == "plain":
        monkeypatch.setattr(volume_rendering, "compiled", lambda like: False)
    else:
        pytest.importorskip("numba")


def quadrature(
    density: np.ndarray, rgb: np.ndarray, depths: np.ndarray, direction: np.ndarray
) -> dict[str, np.ndarray]:
    """One ray, one sample after the other, in front-to-back order; white background."""
    through, colour, weights = 1.0, np.zeros(3), []
    for i, sigma in enumerate(density):
        length = (depths[i + 1] - depths[i]) * np.linalg.norm(direction) if i + 1 < len(depths) else 1e10
        alpha = 1 - math.exp(-max(sigma, 0.0) * length)
        weights.append(through * alpha)
        colour += weights[-1] * rgb[i]
        through *= 1 - alpha
    w = np.array(weights)
    return {"weights": w, "rgb": colour + (1 - w.sum()), "opacity": w.sum(), "depth": (w * depths).sum() / w.sum()}


def test_equals_the_quadrature_written_out() -> None:
    rng = np.random.default_rng(0)
    rays, samples = 12, 20
    raw, rgb = rng.normal(0, 3, (rays, samples)), rng.uniform(size=(rays, samples, 3))
    depths, directions = np.sort(rng.uniform(2, 6, (rays, samples))), rng.normal(0, 1.5, (rays, 3))
    lengths = interval_lengths(torch.tensor(depths), torch.tensor(directions))
    weights, _, opacity = composite(torch.relu(torch.tensor(raw)), lengths)
    colour = accumulate(weights.float(), torch.tensor(rgb)) + (1 - opacity.float())[:, None]
    depth, _ = expected_depth(weights, torch.tensor(depths))
    for ray in range(rays):
        expected = quadrature(raw[ray], rgb[ray], depths[ray], directions[ray])
        np.testing.assert_allclose(weights[ray].numpy(), expected["weights"], atol=1e-6)
        np.testing.assert_allclose(colour[ray].numpy(), expected["rgb"], atol=1e-5)
        np.testing.assert_allclose(opacity[ray].numpy(), expected["opacity"], atol=1e-6)
        np.testing.assert_allclose(depth[ray].numpy(), expected["depth"], atol=1e-5)


@pytest.mark.parametrize("sigma", [0.05, 0.7, 4.0])
def test_homogeneous_medium(sigma: float) -> None:
    """Opacity 1 - exp(-sigma L); the depth where a ray ends is exponential, cut off at L. Directions are oblique."""
    near, far, samples, slant = 1.0, 3.0, 4000, 1.25
    depths = stratified_depths(torch.tensor([near]), torch.tensor([far]), samples)
    direction = torch.tensor([[0.75, 0.0, 1.0]])  # length 1.25
    lengths = interval_lengths(depths, direction, end=torch.tensor([far]))
    weights, transmittance, opacity = composite(torch.full_like(depths, sigma), lengths)
    rate, length = sigma * slant, far - near  # per unit of z-depth
    gone = math.exp(-rate * length)
    assert opacity.item() == pytest.approx(1 - gone, rel=1e-4)
    torch.testing.assert_close(transmittance, torch.exp(-rate * (depths - near)), atol=1e-4, rtol=0)
    mean, variance = expected_depth(weights, depths)
    assert mean.item() == pytest.approx(near + 1 / rate - length * gone / (1 - gone), rel=1e-3)
    assert variance.item() == pytest.approx(1 / rate**2 - length**2 * gone / (1 - gone) ** 2, rel=5e-3)


def test_lengths_are_multiplied_by_the_direction_and_the_last_is_endless() -> None:
    lengths = interval_lengths(torch.tensor([[2.0, 2.5, 4.0]]), torch.tensor([[3.0, 0.0, 4.0]]))
    torch.testing.assert_close(lengths, torch.tensor([[2.5, 7.5, 5 * INFINITE]]))
    faint = composite(torch.tensor([[0.0, 0.0, 1e-6]]), lengths)
    assert faint.opacity.item() == 1.0  # any density in the last interval stops the ray
    assert composite(torch.zeros(1, 3), lengths).opacity.item() == 0.0


def test_the_last_interval_may_have_an_end() -> None:
    lengths = interval_lengths(torch.tensor([[2.0, 2.5]]), torch.tensor([[0.0, 0.0, 2.0]]), end=torch.tensor([4.0]))
    torch.testing.assert_close(lengths, torch.tensor([[1.0, 3.0]]))


def test_opaque_samples_leave_finite_gradients() -> None:
    density = torch.tensor([[0.0, 1e4, 1e4, 5.0]], requires_grad=True)
    lengths = interval_lengths(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([[0.0, 0.0, 1.0]]))
    composite(density, lengths).weights[0, 2].backward()
    assert density.grad is not None
    assert torch.isfinite(density.grad).all()


def test_weights_are_float32_for_bfloat16_densities() -> None:
    weights = composite(torch.rand(2, 5).bfloat16(), torch.ones(2, 5)).weights
    assert weights.dtype == torch.float32
    assert accumulate(weights, torch.rand(2, 5, 3).bfloat16()).dtype == torch.float32


def test_depth_of_nothing_is_zero() -> None:
    mean, variance = expected_depth(torch.zeros(1, 4), torch.tensor([[2.0, 3.0, 4.0, 5.0]]))
    assert (mean.item(), variance.item()) == (0.0, 0.0)


def test_variance_of_two_surfaces() -> None:
    """Half the weight at 2, half at 6: mean 4, variance 4, whatever the opacity."""
    mean, variance = expected_depth(torch.tensor([[0.2, 0.0, 0.2]]), torch.tensor([[2.0, 5.0, 6.0]]))
    assert (mean.item(), variance.item()) == pytest.approx((4.0, 4.0))


def test_stratified_depths_stay_in_their_bins_and_fill_them() -> None:
    near, far = torch.tensor([2.0, 1.0]).repeat(500), torch.tensor([6.0, 9.0]).repeat(500)
    depths = stratified_depths(near, far, 5, torch.Generator().manual_seed(0))
    grid = stratified_depths(near, far, 5)
    torch.testing.assert_close(grid[0], torch.tensor([2.0, 3.0, 4.0, 5.0, 6.0]))
    middle = 0.5 * (grid[:, 1:] + grid[:, :-1])
    assert (depths[:, 1:] >= middle).all()
    assert (depths[:, :-1] <= middle).all()
    assert depths.diff(dim=-1).min() > 0
    inner = (depths[0::2, 2] - 3.5).mean().item()  # the third bin of [2, 6] is [3.5, 4.5]
    assert inner == pytest.approx(0.5, abs=0.05)


def inverse_cdf(edges: Tensor, weights: Tensor, u: np.ndarray) -> np.ndarray:
    mass = weights.double().numpy() + 1e-5
    cdf = np.concatenate([[0], np.cumsum(mass / mass.sum())])
    return np.interp(u, cdf, edges.double().numpy())


def test_sample_pdf_inverts_the_distribution_function() -> None:
    generator = torch.Generator().manual_seed(1)
    edges = torch.rand(6, 17, generator=generator).sort(dim=-1).values * 4 + 2
    weights = torch.rand(6, 16, generator=generator).square()
    even = sample_pdf(edges, weights, 33)
    u = torch.rand(6, 33, generator=torch.Generator().manual_seed(5)).numpy()
    drawn = sample_pdf(edges, weights, 33, torch.Generator().manual_seed(5))
    for ray in range(6):
        expected = inverse_cdf(edges[ray], weights[ray], np.linspace(0, 1, 33))
        np.testing.assert_allclose(even[ray].numpy(), expected, atol=2e-4)
        np.testing.assert_allclose(drawn[ray].numpy(), inverse_cdf(edges[ray], weights[ray], u[ray]), atol=2e-4)


def test_sample_pdf_goes_where_the_weight_is() -> None:
    edges = torch.linspace(0, 10, 11)[None]
    weights = torch.zeros(1, 10)
    weights[0, 3], weights[0, 7] = 0.75, 0.25
    samples = sample_pdf(edges, weights, 4000, torch.Generator().manual_seed(0))
    third, seventh = (((samples > low) & (samples < low + 1)).float().mean().item() for low in (3, 7))
    assert third == pytest.approx(0.75, abs=0.03)
    assert third + seventh == pytest.approx(1, abs=1e-2)


def test_sample_pdf_without_any_weight_is_even_and_finite() -> None:
    samples = sample_pdf(torch.linspace(2, 6, 9)[None], torch.zeros(1, 8), 5)
    torch.testing.assert_close(samples, torch.tensor([[2.0, 3.0, 4.0, 5.0, 6.0]]))


def test_no_ray_one_bin_and_one_depth() -> None:
    edges, weights = torch.tensor([[2.0, 6.0]]), torch.tensor([[0.3]])
    assert sample_pdf(edges, weights, 5).tolist() == [pytest.approx([2.0, 3.0, 4.0, 5.0, 6.0])]
    assert sample_pdf(edges, weights, 1).tolist() == [[2.0]]
    assert sample_pdf(edges[:0], weights[:0], 5).shape == (0, 5)
    assert sample_pdf(edges, weights, 0).shape == (1, 0)
    assert stratified_depths(edges[:, 0], edges[:, 1], 1).tolist() == [[2.0]]
    assert stratified_depths(edges[:0, 0], edges[:0, 1], 4).shape == (0, 4)
    assert distortion(torch.zeros(0, 3), torch.zeros(0, 4)).shape == (0,)
    assert float(distortion(torch.tensor([0.5, 0.25]), torch.tensor([1.0, 1.0, 1.0]))) == 0  # samples at one place


def test_gradients_of_depth_and_length() -> None:
    weights = (torch.rand(2, 4, dtype=torch.float64) + 0.1).requires_grad_()
    depths = torch.rand(2, 4, dtype=torch.float64).sort(-1).values.requires_grad_()
    directions = torch.randn(2, 3, dtype=torch.float64).requires_grad_()
    end = torch.full((2,), 2.0, dtype=torch.float64)
    assert torch.autograd.gradcheck(expected_depth, (weights, depths))
    assert torch.autograd.gradcheck(lambda t, d: interval_lengths(t, d, end), (depths, directions))


def test_distortion_equals_all_pairs_and_has_gradients() -> None:
    """Equation 15 of mip-NeRF 360: the double sum over samples, and each sample's own interval."""
    edges = torch.rand(3, 7, dtype=torch.float64).sort(dim=-1).values
    weights = torch.rand(3, 6, dtype=torch.float64)
    middle = 0.5 * (edges[:, 1:] + edges[:, :-1])
    pairs = (middle[:, :, None] - middle[:, None, :]).abs() * weights[:, :, None] * weights[:, None, :]
    wanted = pairs.sum((1, 2)) + (weights.square() * edges.diff()).sum(1) / 3
    torch.testing.assert_close(distortion(weights, edges), wanted)
    assert torch.autograd.gradcheck(distortion, (weights.requires_grad_(), edges.requires_grad_()))
    one = distortion(torch.ones(1), torch.tensor([2.0, 5.0]))
    assert float(one) == pytest.approx(1.0)  # a third of the interval


def test_a_ray_is_terminated_where_too_little_light_is_left() -> None:
    density, lengths = torch.tensor([[1.0, 2.0, 3.0, 1.0]]), torch.ones(1, 4)
    full, stopped = composite(density, lengths), composite(density, lengths, stop_below=math.exp(-4))
    assert torch.equal(stopped.weights[0, :3], full.weights[0, :3])  # transmittance 1, e^-1, e^-3
    assert float(stopped.weights[0, 3]) == 0  # e^-6
    assert float(stopped.opacity) == pytest.approx(1 - math.exp(-6))


def test_no_ray_one_sample_and_samples_at_one_place() -> None:
    for shape in ((0, 5), (3, 0), (0, 0)):
        out = composite(torch.rand(shape), torch.rand(shape))
        assert out.weights.shape == shape
        assert out.opacity.tolist() == [0.0] * shape[0]
    out = composite(torch.tensor([[2.0]]), torch.tensor([[0.5]]))
    assert float(out.opacity) == pytest.approx(1 - math.exp(-1))
    density, lengths = torch.full((1, 3), 4.0), torch.tensor([[0.25, 0.0, 0.25]])  # two samples at the same depth
    assert composite(density, lengths).weights[0].tolist() == pytest.approx(
        [1 - math.exp(-1), 0.0, math.exp(-1) - math.exp(-2)]
    )


def test_gradients_of_compositing() -> None:
    density = (torch.rand(2, 4, dtype=torch.float64) + 0.1).requires_grad_()
    lengths = torch.rand(2, 4, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(composite, (density, lengths))
    assert torch.autograd.gradcheck(lambda d, n: composite(d, n, stop_below=0.7), (density, lengths))


def test_gradients_of_accumulation() -> None:
    weights = torch.rand(2, 3, 4, dtype=torch.float64, requires_grad=True)
    values = torch.rand(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(accumulate, (weights, values))
    torch.testing.assert_close(accumulate(weights, values), torch.einsum("rsk,rskc->rsc", weights, values))
