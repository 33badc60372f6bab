"""Positional encoding and Fourier features against their formulas."""

from __future__ import annotations

import math

import pytest
import torch

from adlbench.methods.nn.positional_encoding import FourierFeatures, PositionalEncoding


def test_order_and_frequencies_of_the_octaves() -> None:
    """x, then for every octave the sines of all axes and the cosines of all axes."""
    x = torch.tensor([0.3, -0.7])
    expected = [0.3, -0.7]
    for k in range(3):
        expected += [math.sin(2**k * math.pi * v) for v in (0.3, -0.7)]
        expected += [math.cos(2**k * math.pi * v) for v in (0.3, -0.7)]
    torch.testing.assert_close(PositionalEncoding(2, 3)(x), torch.tensor(expected))


@pytest.mark.parametrize(("octaves", "include", "features"), [(10, True, 63), (4, True, 27), (10, False, 60)])
def test_sizes_of_the_paper_and_of_the_released_code(octaves: int, include: bool, features: int) -> None:
    encoding = PositionalEncoding(3, octaves, include_input=include)
    assert encoding.out_features == features
    assert encoding(torch.zeros(5, 4, 3)).shape == (5, 4, features)


def test_scale_of_the_released_code() -> None:
    x = torch.tensor([0.25])
    assert PositionalEncoding(1, 2, scale=1.0)(x)[3].item() == pytest.approx(math.sin(0.5))
    assert PositionalEncoding(1, 2)(x)[3].item() == pytest.approx(math.sin(0.5 * math.pi))


@pytest.mark.parametrize("encoding", [PositionalEncoding(3, 10), FourierFeatures(3, 16)])
def test_phases_are_not_rounded_to_bfloat16(encoding: torch.nn.Module) -> None:
    x = torch.rand(64, 3) * 2 - 1
    with torch.autocast("cpu", torch.bfloat16):
        inside = encoding(x)
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, encoding(x))
    torch.testing.assert_close(inside.double(), encoding(x.double()), atol=2e-3, rtol=0)


def test_fourier_features_against_the_formula() -> None:
    frequencies = torch.tensor([[1.0, 2.0], [0.5, -3.0], [4.0, 0.0]])
    x = torch.rand(7, 2)
    phase = 2 * math.pi * (x[:, None] * frequencies).sum(-1)
    expected = torch.cat([phase.cos(), phase.sin()], dim=1)
    torch.testing.assert_close(FourierFeatures(2, frequencies=frequencies)(x), expected, atol=1e-5, rtol=1e-5)


def test_octaves_are_a_special_case_of_fourier_features() -> None:
    octaves = PositionalEncoding(2, 4, include_input=False)
    frequencies = torch.cat([2.0**k / 2 * torch.eye(2) for k in range(4)])
    x = torch.rand(9, 2)
    cosines, sines = FourierFeatures(2, frequencies=frequencies)(x).chunk(2, dim=-1)
    waves = octaves(x).view(9, 4, 2, 2)  # octave, sine or cosine, axis
    torch.testing.assert_close(waves[:, :, 0].flatten(1), sines, atol=1e-5, rtol=0)
    torch.testing.assert_close(waves[:, :, 1].flatten(1), cosines, atol=1e-5, rtol=0)


def test_gaussian_frequencies_have_the_spread_asked_for_and_are_saved_but_not_trained() -> None:
    torch.manual_seed(0)
    encoding = FourierFeatures(2, 4096, sigma=10.0)
    assert encoding.frequencies.std().item() == pytest.approx(10, rel=0.02)
    assert not list(encoding.parameters())
    restored = FourierFeatures(2, 4096, sigma=10.0)
    restored.load_state_dict(encoding.state_dict())
    assert torch.equal(restored.frequencies, encoding.frequencies)


def test_kernel_of_gaussian_features_is_gaussian() -> None:
    """<gamma(x), gamma(y)> / M tends to exp(-2 pi^2 sigma^2 |x - y|^2) (Rahimi & Recht 2007)."""
    torch.manual_seed(0)
    encoding, x, y = FourierFeatures(2, 20000, sigma=1.0), torch.tensor([0.2, 0.1]), torch.tensor([0.3, 0.25])
    kernel = (encoding(x) @ encoding(y)).item() / 20000
    assert kernel == pytest.approx(math.exp(-2 * math.pi**2 * 0.0325), abs=0.02)
