"""Spherical harmonics: orthonormality by exact quadrature, signs, bands, gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from adlbench.benchmark.api import DataError
from adlbench.methods.nn.spherical_harmonics import C0, bases, evaluate, num_bases


def quadrature() -> tuple[Tensor, Tensor]:
    """Directions [3, Q] and weights [Q] that integrate polynomials to degree 7 over the sphere exactly."""
    z, weight = np.polynomial.legendre.leggauss(6)
    angle = np.arange(12) * 2 * np.pi / 12
    radius = np.sqrt(1 - z**2)
    directions = np.stack(
        [np.outer(radius, np.cos(angle)), np.outer(radius, np.sin(angle)), np.outer(z, np.ones(12))]
    ).reshape(3, -1)
    return torch.from_numpy(directions), torch.from_numpy(np.repeat(weight, 12) * 2 * np.pi / 12)


def unit(count: int) -> Tensor:
    directions = torch.randn(3, count, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return directions / directions.norm(dim=0)


def test_the_functions_are_orthonormal() -> None:
    directions, weights = quadrature()
    functions = torch.cat([torch.full((1, len(weights)), C0, dtype=torch.float64), bases(directions, 3)])
    product = (functions * weights) @ functions.t()
    torch.testing.assert_close(product, torch.eye(16, dtype=torch.float64), atol=1e-12, rtol=0)


def test_first_band_is_minus_y_z_minus_x() -> None:
    """The signs of the released code: a colour learnt with them is wrong with any other convention."""
    x, y, z = directions = unit(5)
    torch.testing.assert_close(bases(directions, 1), 0.4886025119029199 * torch.stack([-y, z, -x]))


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_bands_above_the_degree_in_use_count_for_nothing(degree: int) -> None:
    generator = torch.Generator().manual_seed(1)
    constant = torch.randn(3, 7, dtype=torch.float64, generator=generator)
    rest = torch.randn(15, 3, 7, dtype=torch.float64, generator=generator, requires_grad=True)
    values = evaluate(constant, rest, unit(7), degree)
    cut = rest.detach().clone()
    cut[num_bases(degree) - 1 :] = 0
    torch.testing.assert_close(values, evaluate(constant, cut, unit(7), 3))
    if degree > 0:
        values.sum().backward()
        assert rest.grad is not None
        assert (rest.grad[: num_bases(degree) - 1] != 0).all()
        assert (rest.grad[num_bases(degree) - 1 :] == 0).all()


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_no_direction_one_direction_float32_and_bfloat16(degree: int) -> None:
    assert bases(unit(5)[:, :0], degree).shape == (num_bases(degree) - 1, 0)
    assert bases(unit(1), degree).shape == (num_bases(degree) - 1, 1)
    torch.testing.assert_close(bases(unit(50).float(), degree).double(), bases(unit(50), degree), atol=1e-6, rtol=0)
    generator = torch.Generator().manual_seed(3)
    half = [torch.randn(*n, 3, 9, generator=generator).bfloat16() for n in ((), (15,))] + [unit(9).bfloat16()]
    found = evaluate(*half, degree)
    assert torch.equal(found.float(), evaluate(*(x.float() for x in half), degree))


def test_degrees_that_there_are_not_and_missing_coefficients_are_named() -> None:
    for degree in (-1, 4):
        with pytest.raises(DataError, match=f"degree {degree}; there are those of degree 0, 1, 2 and 3"):
            bases(unit(2), degree)
    with pytest.raises(DataError, match="4 coefficients for degree 2, which has 9"):
        evaluate(torch.ones(3, 2), torch.ones(3, 3, 2), unit(2).float(), 2)


def test_gradients_of_coefficients_and_direction() -> None:
    generator = torch.Generator().manual_seed(2)
    constant, rest = (torch.randn(*n, 3, 4, dtype=torch.float64, generator=generator) for n in ((), (15,)))
    inputs = tuple(x.requires_grad_() for x in (constant, rest, unit(4)))
    assert torch.autograd.gradcheck(lambda c, r, d: evaluate(c, r, d, 3), inputs)
