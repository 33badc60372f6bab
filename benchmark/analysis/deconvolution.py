"""Deconvolution features: a class's score projected back to the pixels.

M. Zeiler and R. Fergus, Visualizing and understanding convolutional networks, ECCV 2014, section 2.1: kernels are transposed,
max pooling is undone by its switches (where the maxima were), and a ReLU is applied to what comes back, whatever went
forward. Transposed kernels and switches are what backpropagation does; only the ReLU differs from it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class _DeconvolutionReLU(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        return x.relu()

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].relu()


class _ReLU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return _DeconvolutionReLU.apply(x)


def has_relu(net: nn.Module) -> bool:
    return any(isinstance(module, nn.ReLU) for module in net.modules())


def deconvolution(net: nn.Module, logits: Callable[[nn.Module], Tensor], target: Tensor) -> Tensor:
    """What ``target`` [B] projects back to, in the shape of the network's input.

    ``logits`` feeds the network that it is given and returns [B, K]; the input is what ``net``'s forward is called with.
    ``net`` itself stays as it is. Only ``nn.ReLU`` modules are recognised, not the function.
    """
    copied = copy.deepcopy(net)
    for module in list(copied.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, _ReLU())
    seen: list[Tensor] = []

    def record(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        seen.append(arguments[0].detach().clone().requires_grad_())
        return (seen[-1], *arguments[1:])

    handle = copied.register_forward_pre_hook(record)
    try:
        with torch.enable_grad():
            scores = logits(copied)
            (gradient,) = torch.autograd.grad(scores[torch.arange(len(scores)), target].sum(), seen[-1])
    finally:
        handle.remove()
    return gradient.detach()
