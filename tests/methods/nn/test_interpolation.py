from __future__ import annotations

import pytest
import torch

from adlbench.methods.nn.interpolation import lerp, slerp

SHARES = torch.linspace(0, 1, 11, dtype=torch.float64)[:, None]


def ends(seed: int = 0, dimension: int = 100) -> tuple[torch.Tensor, torch.Tensor]:
    start, end = torch.randn(2, dimension, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return start, end


@pytest.mark.parametrize("path", [lerp, slerp])
def test_ends_are_exact(path):
    start, end = ends()
    codes = path(start, end, SHARES)
    assert codes.shape == (11, 100)
    assert torch.equal(codes[0], start)
    assert torch.equal(codes[-1], end)


def test_slerp_interpolates_the_norm_and_keeps_equal_norms():
    start, end = ends()
    norms = slerp(start, end, SHARES).norm(dim=1)
    torch.testing.assert_close(norms, lerp(start.norm(), end.norm(), SHARES[:, 0]))
    end = end / end.norm() * start.norm()
    torch.testing.assert_close(slerp(start, end, SHARES).norm(dim=1), start.norm().expand(11))
    assert lerp(start, end, SHARES)[5].norm() < 0.8 * start.norm()  # the straight line leads through the inside


def test_slerp_turns_at_constant_speed_in_the_plane_of_its_ends():
    start, end = torch.tensor([2.0, 0.0, 0.0]).double(), torch.tensor([0.0, 3.0, 0.0]).double()
    codes = slerp(start, end, SHARES)
    angles = torch.atan2(codes[:, 1], codes[:, 0])
    torch.testing.assert_close(angles, SHARES[:, 0] * torch.pi / 2)
    assert codes[:, 2].abs().max() == 0


def test_slerp_equals_the_formula_on_the_sphere():
    start, end = (code / code.norm() for code in ends(1))
    omega = (start @ end).acos()
    expected = (((1 - SHARES) * omega).sin() * start + (SHARES * omega).sin() * end) / omega.sin()
    torch.testing.assert_close(slerp(start, end, SHARES), expected)


@pytest.mark.parametrize("factor", [1.0, 2.5, 1 + 1e-9, -1.0, 0.0])
def test_slerp_falls_back_to_the_line_where_the_circle_is_not_defined(factor):
    start, _ = ends(2)
    codes = slerp(start, factor * start, SHARES)
    assert torch.isfinite(codes).all()
    torch.testing.assert_close(codes, lerp(start, factor * start, SHARES))


def test_slerp_in_batches():
    start, end = torch.randn(2, 4, 7, generator=torch.Generator().manual_seed(0))
    halfway = slerp(start, end, torch.full((4, 1), 0.5))
    for index in range(4):
        torch.testing.assert_close(halfway[index], slerp(start[index], end[index], torch.tensor([0.5])))
