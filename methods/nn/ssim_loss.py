"""Structural similarity as a training loss."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

WINDOW, SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03


def ssim(image: Tensor, reference: Tensor) -> Tensor:
    """Mean structural similarity (Wang et al. 2004) of images [C, H, W] in [0, 1], a 0-d tensor; gradient for ``image`` only.

    Gaussian window 11x11 with sigma 1.5, and zeros beyond the border, as in the released code of 3D Gaussian Splatting.
    The metric of the benchmark leaves the border out instead: another number. In at least float32, since variances are
    differences of squares. Raises ValueError for images without a pixel.
    """
    if not image.numel():
        raise ValueError(f"structural similarity of an image {list(image.shape)}; it needs at least one pixel")
    kind = torch.promote_types(image.dtype, torch.float32)
    image, reference = image.to(kind), reference.detach().to(kind)
    mean_x, mean_xx, mean_xy = _blur(torch.stack([image, image * image, image * reference]))
    mean_y, mean_yy = _blur(torch.stack([reference, reference * reference]))
    product, squares = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
    luminance = (2 * product + K1**2) / (squares + K1**2)
    contrast_structure = (2 * (mean_xy - product) + K2**2) / (mean_xx + mean_yy - squares + K2**2)
    return (luminance * contrast_structure).mean()


def _blur(planes: Tensor) -> Tensor:
    """Separable Gaussian filter of [..., H, W] as two matrix products: on a CPU twenty times as fast as a convolution."""
    height, width = planes.shape[-2:]
    rows = _filter_matrix(height, planes.dtype, planes.device)
    columns = _filter_matrix(width, planes.dtype, planes.device)
    return rows @ (planes.reshape(-1, width) @ columns).view(planes.shape)


@lru_cache(maxsize=8)
def _filter_matrix(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[size, size], symmetric: row i holds the window centred at i; what lies outside counts as zero."""
    offset = torch.arange(size, dtype=torch.float64)
    distance = (offset[:, None] - offset[None, :]).abs()
    weight = torch.exp(-0.5 * (distance / SIGMA) ** 2) * (distance <= WINDOW // 2)
    total = torch.exp(-0.5 * (torch.arange(-(WINDOW // 2), WINDOW // 2 + 1, dtype=torch.float64) / SIGMA) ** 2).sum()
    return (weight / total).to(device=device, dtype=dtype)
