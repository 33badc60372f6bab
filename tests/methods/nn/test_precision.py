"""Autograd functions that autocast must not round."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from adlbench.methods.nn.precision import full_precision


def product(wrap: Callable[[Any], Any]) -> Any:
    class Product(torch.autograd.Function):
        @staticmethod
        @wrap
        def forward(ctx: Any, size: int, left: Tensor, right: Tensor) -> Tensor:
            ctx.save_for_backward(left, right)
            return left @ right

        @staticmethod
        @wrap
        def backward(ctx: Any, pull: Tensor) -> tuple[None, Tensor, Tensor]:
            left, right = ctx.saved_tensors
            return None, pull @ right.t(), left.t() @ pull

    return Product.apply


def test_value_and_gradient_are_those_without_autocast_also_where_backward_runs_within_it() -> None:
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(5, 5, generator=generator).requires_grad_() for _ in range(2))
    wanted = left @ right
    gradients = torch.autograd.grad(wanted.square().sum(), (left, right))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = product(lambda method: method)(5, left, right)
        value = product(full_precision)(5, left, right)
        found = torch.autograd.grad(value.square().sum(), (left, right))
    assert rounded.dtype == torch.bfloat16
    assert torch.equal(value, wanted)
    assert all(map(torch.equal, found, gradients))
