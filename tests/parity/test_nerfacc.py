"""Volume rendering against nerfacc's dense functions."""

from __future__ import annotations

import pytest
import torch

from adlbench.methods.nn.volume_rendering import accumulate, composite, sample_pdf

volrend = pytest.importorskip("nerfacc.volrend")


def test_weights_transmittance_and_accumulation() -> None:
    torch.manual_seed(0)
    edges = torch.rand(32, 25).sort(dim=-1).values * 4 + 2
    density, rgb = torch.rand(32, 24) * 5, torch.rand(32, 24, 3)
    weights, transmittance, _ = volrend.render_weight_from_density(edges[:, :-1], edges[:, 1:], density)
    ours = composite(density, edges.diff(dim=-1))
    torch.testing.assert_close(ours.weights, weights, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(ours.transmittance, transmittance, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(accumulate(weights, rgb), volrend.accumulate_along_rays(weights, rgb))
    torch.testing.assert_close(ours.opacity, volrend.accumulate_along_rays(weights, None)[:, 0])


def test_gradients() -> None:
    torch.manual_seed(1)
    edges = torch.rand(8, 13).sort(dim=-1).values
    density, pull = torch.rand(8, 12).mul(20).requires_grad_(), torch.rand(8, 12)
    theirs = torch.autograd.grad(
        (volrend.render_weight_from_density(edges[:, :-1], edges[:, 1:], density)[0] * pull).sum(), density
    )[0]
    ours = torch.autograd.grad((composite(density, edges.diff(dim=-1)).weights * pull).sum(), density)[0]
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)


def test_sampling_covers_the_same_mass() -> None:
    """Samples at even quantiles, given back to the distribution function, are even quantiles."""
    torch.manual_seed(2)
    edges, weights = torch.rand(4, 9).sort(dim=-1).values, torch.rand(4, 8)
    samples = sample_pdf(edges, weights, 7)
    cdf = torch.cat([torch.zeros(4, 1), (weights / weights.sum(-1, keepdim=True)).cumsum(-1)], -1)
    for ray in range(4):
        i = torch.searchsorted(edges[ray], samples[ray], right=True).clamp(1, 8)
        left, right = edges[ray][i - 1], edges[ray][i]
        u = cdf[ray][i - 1] + (samples[ray] - left) / (right - left) * (cdf[ray][i] - cdf[ray][i - 1])
        torch.testing.assert_close(u, torch.linspace(0, 1, 7), atol=1e-3, rtol=0)
