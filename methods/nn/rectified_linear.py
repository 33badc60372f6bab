"""A linear layer with ReLU as one kernel, for networks so small that what lies between their products takes the time."""

from __future__ import annotations

import importlib
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor


def fused(like: Tensor) -> bool:
    """Whether ``rectified_linear`` can be used: on a CPU with Intel AMX and numba, under autocast to bfloat16."""
    return (
        like.device.type == "cpu"
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
        and _has_tiles()
    )


def rectified_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    rows: Tensor | None = None,
    extra: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """ReLU(x W^T + b) [..., N] in bfloat16, and beside it x V^T + c [..., E] in float32, without ReLU.

    As under autocast x and the weights are rounded to bfloat16, and sums are in float32; biases, which stay in float32, are
    added before what comes out is rounded. So are the gradients: that to x is rounded, those to weights and biases are not.

    Args:
        x: [..., K], float32 or bfloat16, M rows in all; or with zeros behind, up to a multiple of 32 columns.
        weight: float32 [N, K]; N may be 0.
        bias: float32 [N], or [G, N] of which ``rows`` int64 [M], ascending, says which belongs to each row of x.
        extra: V float32 [E, K] and c float32 [E].
    """
    if extra is None:
        extra = weight.new_empty(0, weight.shape[1]), weight.new_empty(0)
    rows = torch.empty(0, dtype=torch.int64) if rows is None else rows
    wide = _kernel().widen_rows(x.reshape(-1, x.shape[-1]))
    out, other = _RectifiedLinear.apply(wide, weight, torch.atleast_2d(bias), rows, *extra)  # type: ignore[no-untyped-call]
    if out.shape[1] != len(weight):  # not otherwise: a slice's gradient is a copy
        out = out[:, : len(weight)]
    return out.view(*x.shape[:-1], len(weight)), other.view(*x.shape[:-1], len(extra[1]))


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x V^T + c [..., E] in float32, by the same kernel: for few columns."""
    nothing = weight.new_empty(0, weight.shape[1])
    return rectified_linear(x, nothing, weight.new_empty(0), extra=(weight, bias))[1]


class _RectifiedLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, rows: Tensor, extra_weight: Tensor, extra_bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        out, extra = _kernel().forward(x, weight, bias, rows, extra_weight, extra_bias)
        ctx.save_for_backward(x, weight, rows, extra_weight, out)
        ctx.groups = len(bias)
        return out, extra

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor, extra_gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, rows, extra_weight, out = ctx.saved_tensors
        to_x, to_weight, to_bias, to_extra, to_extra_bias = _kernel().backward(
            x, out, gradient.contiguous(), extra_gradient.contiguous(), weight, ctx.groups, rows, extra_weight,
            ctx.needs_input_grad[0],
        )  # fmt: skip
        return to_x, to_weight, to_bias, None, to_extra, to_extra_bias


def _kernel() -> Any:
    """The compiled kernel, imported when it is needed: numba takes a second."""
    return importlib.import_module("adlbench.methods.nn.rectified_linear_numba")


@cache
def _has_tiles() -> bool:
    if find_spec("numba") is None:
        return False
    return bool(importlib.import_module("adlbench.methods.nn.amx_numba").available())
