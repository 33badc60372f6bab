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


def fused_mlp(x: Tensor, layers: Sequence[Layer], rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """What the last layer gives, bfloat16 [..., N], and what all layers give without ReLU, float32 [..., sum of E].

    As under autocast inputs and weights are rounded to bfloat16, and sums are in float32; biases, which stay in float32, are
    added before what comes out is rounded. So are the gradients: those to inputs are rounded, those to weights and biases are
    not.

    Args:
        x: [..., K], float32 or bfloat16, M rows in all; or with zeros behind, up to a multiple of 32 columns.
        rows: int64 [M], ascending.
    """
    wide = _kernel().widen_rows(x.reshape(-1, x.shape[-1]))
    rows = torch.empty(0, dtype=torch.int64) if rows is None else rows
    tensors: list[Tensor] = []
    for layer in layers:
        nothing = layer.weight.new_empty(0, layer.weight.shape[1]), layer.weight.new_empty(0)
        tensors += [layer.weight, torch.atleast_2d(layer.bias), *(layer.extra or nothing)]
    out, extras = _FusedMLP.apply(wide, rows, [layer.joins for layer in layers], *tensors)  # type: ignore[no-untyped-call]
    width = len(layers[-1].weight)
    if out.shape[1] != width:  # not otherwise: a slice's gradient is a copy
        out = out[:, :width]
    return out.view(*x.shape[:-1], width), extras.view(*x.shape[:-1], extras.shape[1])


class _FusedMLP(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor, joins: list[bool], *tensors: Tensor) -> tuple[Tensor, Tensor]:
        run = _kernel()
        layers = [run.Parameters(*tensors[place : place + 4]) for place in range(0, len(tensors), 4)]
        ctx.plan, activations, extras, rounded = run.forward(x, rows, layers, joins)
        ctx.shapes = [(*layer.weight.shape, len(layer.bias)) for layer in layers]
        ctx.save_for_backward(x, rows, activations, rounded)
        last = int(ctx.plan.table[-1, run.WIDTH])
        return activations[activations.numel() - len(x) * last :].view(len(x), last), extras

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor, extra_gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, rows, activations, rounded = ctx.saved_tensors
        to_x, to_tensors = _kernel().backward(
            x, rows, ctx.shapes, ctx.plan, activations, rounded, gradient.contiguous(), extra_gradient.contiguous(),
            ctx.needs_input_grad[0],
        )  # fmt: skip
        return to_x, None, None, *to_tensors


def _kernel() -> Any:
    """The compiled kernel, imported when it is needed: numba takes a second."""
    return importlib.import_module("adlbench.methods.nn.fused_mlp_numba")


@cache
def _has_tiles() -> bool:
    if find_spec("numba") is None:
        return False
    return bool(importlib.import_module("adlbench.methods.nn.amx_numba").available())
