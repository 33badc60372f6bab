"""Small networks of linear layers with ReLU, fused: what lies between their products would take most of the time."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Layer(NamedTuple):
    """ReLU(h W^T + b), and beside it h V^T + c without ReLU, of what the layer before gives."""

    weight: Tensor  # W, float32 [N, K]; N may be 0
    bias: Tensor  # b, float32 [N], or [G, N], of which ``rows`` says which belongs to each row
    extra: tuple[Tensor, Tensor] | None = None  # V, float32 [E, K], and c, float32 [E]
    joins: bool = False  # whether the network's input stands before what the layer before gives

    @classmethod
    def linear(cls, weight: Tensor, bias: Tensor) -> Layer:
        """Only what has no ReLU."""
        return cls(weight.new_empty(0, weight.shape[1]), bias.new_empty(0), (weight, bias))


def fused(like: Tensor) -> bool:
    """Whether ``fused_mlp`` can be used: on a CPU with Intel AMX and numba, under autocast to bfloat16."""
    return (
        like.device.type == "cpu"
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
        and _has_tiles()
    )


def fused_mlp(x: Tensor, layers: Sequence[Layer], rows: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
    """What the last layer gives, bfloat16 [..., N], and what layers give without ReLU, float32 [..., E], of those that do.

    As under autocast inputs and weights are rounded to bfloat16, and sums are in float32; biases, which stay in float32, are
    added before what comes out is rounded. So are the gradients: those to inputs are rounded, those to weights and biases are
    not.

    Args:
        x: [..., K], float32 or bfloat16, M rows in all; or with zeros behind, up to a multiple of 32 columns.
        rows: int64 [M], ascending.
    """
    wide = kernel().widen_rows(x.reshape(-1, x.shape[-1]))
    rows = torch.empty(0, dtype=torch.int64) if rows is None else rows
    tensors = []
    for layer in layers:
        nothing = layer.weight.new_empty(0, layer.weight.shape[1]), layer.weight.new_empty(0)
        tensors += [layer.weight, torch.atleast_2d(layer.bias), *(layer.extra or nothing)]
    joins = tuple(layer.joins for layer in layers)
    out, *extras = _FusedMLP.apply(wide, rows, joins, *tensors)  # type: ignore[no-untyped-call]
    width = len(layers[-1].weight)
    if out.shape[1] != width:  # not otherwise: a slice's gradient is a copy
        out = out[:, :width]
    out, *extras = (each.view(*x.shape[:-1], each.shape[1]) for each in (out, *extras))
    return out, extras


class _FusedMLP(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor, joins: tuple[bool, ...], *tensors: Tensor) -> tuple[Tensor, ...]:
        run, h, kept, extras = kernel(), x, [], []
        for number, join in enumerate(joins):
            weight, bias, extra_weight, extra_bias = tensors[4 * number : 4 * number + 4]
            if join:
                h = run.join(x, h, weight.shape[1])
            out, extra, rounded = run.forward(h, weight, bias, _groups(rows, bias), extra_weight, extra_bias)
            kept += [h, out, rounded]
            if len(extra_bias):
                extras.append(extra)
            h = out
        ctx.save_for_backward(rows, *tensors, *kept)
        ctx.joins = joins
        return h, *extras

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor, *to_extras: Tensor) -> tuple[Tensor | None, ...]:
        run, count, left = kernel(), len(ctx.joins), list(to_extras)
        rows, tensors, kept = (
            ctx.saved_tensors[0],
            ctx.saved_tensors[1 : 4 * count + 1],
            ctx.saved_tensors[4 * count + 1 :],
        )
        to_tensors: list[Tensor] = []
        to_x: Tensor | None = None
        for number in reversed(range(count)):
            weight, bias, extra_weight, _ = tensors[4 * number : 4 * number + 4]
            h, out, rounded = kept[3 * number : 3 * number + 3]
            to_extra = left.pop() if len(extra_weight) else torch.empty(len(h), 0)
            wanted = number > 0 or ctx.needs_input_grad[0]
            to_h, *others = run.backward(
                h,
                out,
                gradient.contiguous(),
                to_extra.contiguous(),
                rounded,
                _groups(rows, bias),
                weight.shape,
                len(bias),
                wanted,
            )
            to_tensors[:0] = others
            if ctx.joins[number]:
                before = weight.shape[1] - len(tensors[4 * number - 4])
                if ctx.needs_input_grad[0]:
                    to_x = run.widen_rows(to_h[:, :before])
                to_h = run.widen_rows(to_h[:, before : weight.shape[1]])
            gradient = to_h
        if to_x is not None:
            gradient = gradient + to_x
        return gradient, None, None, *to_tensors


def _groups(rows: Tensor, bias: Tensor) -> Tensor:
    """Which bias belongs to each row; nothing where all have the same."""
    return rows if len(bias) > 1 else rows[:0]


def kernel() -> Any:
    """The compiled kernel, imported when it is needed: numba takes a second."""
    return importlib.import_module("adlbench.methods.nn.fused_mlp_numba")


@cache
def _has_tiles() -> bool:
    if find_spec("numba") is None:
        return False
    return bool(importlib.import_module("adlbench.methods.nn.amx_numba").available())
