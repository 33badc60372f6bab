"""Real spherical harmonics to degree 3, for colours that depend on the viewing direction.

All arrays have the point's index last.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from adlbench.benchmark.api import DataError

C0 = 0.28209479177387814  # 1 / (2 sqrt(pi))
C1 = 0.4886025119029199
C2 = (1.0925484305920792, 0.31539156525252005, 0.5462742152960396)
C3 = (0.5900435899266435, 2.890611442640554, 0.4570457994644658, 0.3731763325901154, 1.445305721320277)


def num_bases(degree: int) -> int:
    return (degree + 1) ** 2


def bases(directions: Tensor, degree: int) -> Tensor:
    """The functions of bands 1 .. ``degree`` at unit ``directions`` [3, N]: [(degree + 1)^2 - 1, N], by l, then m = -l .. l.

    With the Condon-Shortley phase, as in Kerbl et al. 2023: the first band is C1 (-y, z, -x). Band 0 is the constant C0.
    In the type of the directions, right to 1e-6 in float32. Raises DataError for a degree that is not 0, 1, 2 or 3.
    """
    if degree not in range(4):
        raise DataError(f"spherical harmonics of degree {degree}; there are those of degree 0, 1, 2 and 3")
    x, y, z = directions
    if degree == 0:
        return directions[:0]
    rows = [-C1 * y, C1 * z, -C1 * x]
    if degree > 1:
        xx, yy, zz = x * x, y * y, z * z
        xy = x * y
        minus = xx - yy
        rows += [C2[0] * xy, -C2[0] * (y * z), C2[1] * (2 * zz - xx - yy), -C2[0] * (x * z), C2[2] * minus]
        if degree > 2:
            plane = 4 * zz - xx - yy
            rows += [
                -C3[0] * y * (3 * xx - yy),
                C3[1] * xy * z,
                -C3[2] * y * plane,
                C3[3] * z * (2 * zz - 3 * xx - 3 * yy),
                -C3[2] * x * plane,
                C3[4] * z * minus,
                -C3[0] * x * (xx - 3 * yy),
            ]
    return torch.stack(rows)


def evaluate(constant: Tensor, rest: Tensor, directions: Tensor, degree: int) -> Tensor:
    """The expansion's values [C, N] at unit ``directions`` [3, N].

    Args:
        constant: [C, N] coefficients of band 0.
        rest: [K, C, N] coefficients of the bands above; those of bands above ``degree`` are not used.

    bfloat16 coefficients and directions are read as float32. Raises DataError for fewer coefficients than ``degree`` needs.
    """
    if len(rest) < num_bases(degree) - 1:
        raise DataError(f"{1 + len(rest)} coefficients for degree {degree}, which has {num_bases(degree)}")
    kind = torch.promote_types(torch.promote_types(constant.dtype, directions.dtype), torch.float32)
    constant, rest, directions = constant.to(kind), rest.to(kind), directions.to(kind)
    if degree == 0:
        return C0 * constant
    values: Tensor = _Combine.apply(C0 * constant, rest, bases(directions, degree))
    return values


class _Combine(torch.autograd.Function):
    """start + sum over k of rest[k] * basis[k], one k at a time: the product of all of them would not fit into a cache."""

    @staticmethod
    def forward(ctx: Any, start: Tensor, rest: Tensor, basis: Tensor) -> Tensor:
        ctx.save_for_backward(rest, basis)
        out = start.clone()
        for k, row in enumerate(basis):
            out.addcmul_(rest[k], row)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rest, basis = ctx.saved_tensors
        grad_rest = torch.empty_like(rest)
        grad_rest[len(basis) :] = 0
        grad_basis = torch.empty_like(basis)
        for k, row in enumerate(basis):
            torch.mul(grad, row, out=grad_rest[k])
            torch.sum(rest[k] * grad, 0, out=grad_basis[k])
        return grad, grad_rest, grad_basis
