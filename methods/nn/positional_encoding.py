"""Coordinates lifted to sines and cosines, so that an MLP can represent detail.

``PositionalEncoding`` is that of NeRF (Mildenhall et al. 2020, eq. 4): octaves along each axis. ``FourierFeatures`` is the
general form (Tancik et al. 2020): any set of frequency vectors, by default drawn from a Gaussian.
"""

from __future__ import annotations

import importlib
import math

import torch
from torch import Tensor, nn


class PositionalEncoding(nn.Module):
    """[..., D] -> [..., out_features]: x, sin(f_0 x), cos(f_0 x), sin(f_1 x), ... with f_k = scale * 2^k.

    ``scale`` is pi in the paper, whose coordinates lie in [-1, 1]; NeRF's released code has 1 and world coordinates.
    Computed in at least float32: in bfloat16 the phase of the highest octave would be noise.
    """

    frequencies: Tensor

    def __init__(self, dims: int, num_frequencies: int, include_input: bool = True, scale: float = math.pi):
        super().__init__()
        self.dims, self.num_frequencies, self.include_input, self.scale = dims, num_frequencies, include_input, scale
        self.out_features = dims * (2 * num_frequencies + include_input)
        self.register_buffer("frequencies", scale * 2.0 ** torch.arange(num_frequencies), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            x = x if x.dtype == torch.float64 else x.float()
            phase = x[..., None, :] * self.frequencies.to(x.dtype)[:, None]  # [..., L, D]
            waves = torch.stack([phase.sin(), phase.cos()], dim=-2).flatten(-3)  # [..., L * 2 * D]
            return torch.cat([x, waves], dim=-1) if self.include_input else waves

    def for_fused(self, x: Tensor) -> Tensor:
        """The same for ``fused_mlp``, where it is ``fused``: bfloat16, with zeros up to a multiple of 32 features, and
        without a gradient. Phases are in float32 here too."""
        numba = importlib.import_module("adlbench.methods.nn.positional_encoding_numba")
        encoded: Tensor = numba.encode(x.reshape(-1, self.dims), self.scale, self.num_frequencies, self.include_input)
        return encoded.view(*x.shape[:-1], encoded.shape[-1])

    def extra_repr(self) -> str:
        return f"{self.dims} -> {self.out_features}"


class FourierFeatures(nn.Module):
    """[..., D] -> [..., 2M]: cos(2 pi B x), sin(2 pi B x) with M frequency vectors B [M, D], in cycles per unit.

    The coordinates of Tancik et al. lie in [0, 1); for coordinates in [-1, 1] the same detail needs half of ``sigma``.
    ``frequencies`` gives B itself; otherwise it is drawn from N(0, sigma^2), from torch's global generator. B is not
    trained and is saved with the weights.
    """

    frequencies: Tensor

    def __init__(self, dims: int, num_features: int = 256, sigma: float = 10.0, frequencies: Tensor | None = None):
        super().__init__()
        drawn = sigma * torch.randn(num_features, dims) if frequencies is None else frequencies.float()
        self.register_buffer("frequencies", drawn)
        self.out_features = 2 * len(drawn)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            x = x if x.dtype == torch.float64 else x.float()
            phase = 2 * math.pi * x @ self.frequencies.to(x.dtype).T
            return torch.cat([phase.cos(), phase.sin()], dim=-1)

    def extra_repr(self) -> str:
        return f"{self.frequencies.shape[1]} -> {self.out_features}"
