"""Images on their way into and out of networks, and light augmentation. Images are uint8 [B, C, H, W] unless said."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from adlbench.benchmark.api import DataError


def to_unit(image: Tensor) -> Tensor:
    """uint8 images as float32 in [0, 1]."""
    if image.dtype != torch.uint8:
        raise DataError(f"images must be uint8 in 0..255, not {image.dtype}; convert them in the dataset's reader")
    return image.float() / 255.0


def normalise(image: Tensor) -> Tensor:
    """uint8 images as float32 in [-1, 1]."""
    return to_unit(image) * 2.0 - 1.0


def random_shift(image: Tensor, pixels: int, generator: torch.Generator) -> Tensor:
    """Each image moved by up to ``pixels`` along both axes, black moving in from outside. Any dtype."""
    if pixels <= 0:
        return image
    count, _, height, width = image.shape
    padded = functional.pad(image, (pixels, pixels, pixels, pixels))
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # [B, C, 2p + 1, 2p + 1, H, W], a view
    dy, dx = torch.randint(0, 2 * pixels + 1, (2, count), generator=generator)
    return windows[torch.arange(count), :, dy, dx]


def random_affine(
    image: Tensor, generator: torch.Generator, *, degrees: float = 0.0, scale: float = 0.0, shift: float = 0.0
) -> Tensor:
    """Each image rotated by up to ``degrees``, zoomed by up to 1 ± ``scale`` and moved by up to ``shift`` pixels.

    Bilinear, in one interpolation, black coming in from outside, rounded back to uint8.
    """
    if degrees <= 0 and scale <= 0 and shift <= 0:
        return image
    count, _, height, width = image.shape
    angle, zoom, dx, dy = torch.rand((4, count), generator=generator) * 2.0 - 1.0
    angle, zoom = angle * math.radians(degrees), 1.0 + zoom * scale
    # From output to input, in pixels around the centre, expressed in grid_sample's [-1, 1] of each axis.
    cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    row_x = torch.stack([cos, -sin * height / width, 2.0 * shift * dx / width], dim=1)
    row_y = torch.stack([sin * width / height, cos, 2.0 * shift * dy / height], dim=1)
    grid = functional.affine_grid(torch.stack([row_x, row_y], dim=1), list(image.shape), align_corners=False)
    moved = functional.grid_sample(image.float(), grid, mode="bilinear", align_corners=False)
    return moved.round_().clamp_(0, 255).to(torch.uint8)
