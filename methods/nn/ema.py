"""Exponential moving average of a network's weights: the copy that is evaluated, beside the one that is trained."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


class EMA(nn.Module):
    """A copy in eval mode whose parameters follow those of a trained network, and whose buffers equal its buffers.

    The running statistics of batch normalisation are averages already: they are copied. Without that the copy would keep
    the ones it was made with, and sample noise. The decay grows from 2/11 to ``decay`` as (1 + t) / (10 + t), so that
    short training is not an average of initial weights. The average is kept in float32.
    """

    def __init__(self, net: nn.Module, decay: float = 0.999):
        super().__init__()
        self.decay = decay
        self.num_updates = 0  # on the host: read in every step, which must not wait for the device
        self.average = copy.deepcopy(net).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        """One step towards the parameters of ``net``; its buffers are copied."""
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        torch._foreach_lerp_(list(self.average.parameters()), list(net.parameters()), 1 - decay)
        for kept, present in zip(self.average.buffers(), net.buffers(), strict=True):
            kept.copy_(present)

    def train(self, mode: bool = True) -> EMA:
        """The average stays in eval mode, whatever is done to the module that holds it."""
        self.training = mode
        return self

    def forward(self, *inputs: Tensor) -> Any:
        return self.average(*inputs)

    def get_extra_state(self) -> int:
        return self.num_updates

    def set_extra_state(self, state: int) -> None:
        self.num_updates = state
