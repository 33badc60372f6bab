"""Paths between two latent codes."""

from __future__ import annotations

import torch
from torch import Tensor


def lerp(start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    """The straight line: codes [..., D] at ``share`` (broadcast against [..., 1]), 0 is ``start`` and 1 is ``end``."""
    return start * (1 - share) + end * share


def slerp(start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    """The great circle (Shoemake 1985; White 2016), codes [..., D] at ``share`` (broadcast against [..., 1]).

    Codes drawn from a normal distribution in many dimensions lie near a sphere; the straight line between two of them
    leads through its inside, where the generator was never trained. Directions follow the great circle and norms go
    straight from one end's to the other's, so that codes of equal norm keep it. Where the circle is not defined (parallel,
    opposite or zero codes) this is ``lerp``.
    """
    norm_start, norm_end = start.norm(dim=-1, keepdim=True), end.norm(dim=-1, keepdim=True)
    cosine = (start * end).sum(-1, keepdim=True) / (norm_start * norm_end).clamp_min(1e-12)
    angle = cosine.clamp(-1, 1).acos()
    sine = angle.sin()
    undefined = (sine < 1e-4) | (norm_start < 1e-12) | (norm_end < 1e-12)
    safe = torch.where(undefined, torch.ones_like(sine), sine)
    direction = ((1 - share) * angle).sin() / safe * start / norm_start.clamp_min(1e-12)
    direction = direction + (share * angle).sin() / safe * end / norm_end.clamp_min(1e-12)
    path = direction * lerp(norm_start, norm_end, share)
    path = torch.where(undefined, lerp(start, end, share), path)
    # At the ends sin(angle) / sin(angle) is 1 up to rounding; the ends themselves are wanted.
    return torch.where(share == 0, start, torch.where(share == 1, end, path))
