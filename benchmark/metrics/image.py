"""Distances between images: PSNR and SSIM, one value per image.

Both take uint8 or float tensors [..., C, H, W] (float in [0, 1]) and return float32 [...]. Evaluators score what would
be stored, so they call ``quantize`` first; the functions themselves do not, so that they stay differentiable.

A mean over images is the mean of these values. The PSNR of the pooled squared error is another number: 22.97 instead of
30 dB for two images with squared errors of 1e-2 and 1e-4.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from adlbench.benchmark.errors import AdlbenchError

MAX_PSNR = 100.0  # dB, of two equal images: their error is 0 and its logarithm is not a number that can be averaged
WINDOW = 11
SIGMA = 1.5
K1, K2 = 0.01, 0.03


def quantize(image: Tensor) -> Tensor:
    """uint8 as the image would be stored: clipped to [0, 1], times 255, rounded. uint8 input is returned as it is.

    Raises AdlbenchError when a value is not finite: a picture of NaNs would otherwise be scored as some grey.
    """
    if image.dtype == torch.uint8:
        return image
    if not torch.isfinite(image).all():
        bad = int((~torch.isfinite(image)).sum())
        raise AdlbenchError(
            f"{bad} of {image.numel()} values of an image are NaN or infinite; the model that made it has diverged"
        )
    return (image.detach().float().clamp(0, 1) * 255).round().to(torch.uint8)


def unit_float(image: Tensor) -> Tensor:
    """float32 in [0, 1]: uint8 is divided by 255, floating point is taken as it is."""
    return image.float() / 255 if image.dtype == torch.uint8 else image.float()


def psnr(image: Tensor, reference: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB (at most 100), [..., C, H, W] -> [...]; the error is a mean over C, H, W."""
    image, reference = _pair(image, reference)
    error = (image - reference).square().flatten(-3).mean(-1)
    return -10 * torch.log10(error.clamp_min(10 ** (-MAX_PSNR / 10)))


def ssim(image: Tensor, reference: Tensor) -> Tensor:
    """Structural similarity of Wang et al. 2004, [..., C, H, W] -> [...]: 1 for equal images.

    Gaussian window 11x11 with sigma 1.5, K = (0.01, 0.03), data range 1, statistics over windows that lie inside the
    image only (the valid region), mean over pixels and channels. This is skimage's ``structural_similarity`` with
    ``gaussian_weights=True, sigma=1.5, use_sample_covariance=False``. torchmetrics pads by reflection and keeps the
    border, the loss of 3D Gaussian Splatting pads with zeros, skimage's default is a 7x7 box: those are other numbers.
    """
    image, reference = _pair(image, reference)
    height, width = image.shape[-2:]
    if min(height, width) < WINDOW:
        raise AdlbenchError(f"SSIM needs images of at least {WINDOW}x{WINDOW} pixels; these have {height}x{width}")
    moments = torch.stack([image, reference, image * image, reference * reference, image * reference])
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = _blur_valid(moments).unbind(0)  # [..., C, H - 10, W - 10]
    product, squares = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
    luminance = (2 * product + K1**2) / (squares + K1**2)
    contrast_structure = (2 * (mean_xy - product) + K2**2) / (mean_xx + mean_yy - squares + K2**2)
    return (luminance * contrast_structure).flatten(-3).mean(-1)


def _pair(image: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    if image.shape != reference.shape or image.ndim < 3:
        raise AdlbenchError(
            f"two images are compared that differ in shape: {tuple(image.shape)} and {tuple(reference.shape)}; "
            "both must be [..., channels, height, width]"
        )
    return unit_float(image), unit_float(reference)


def _blur_valid(planes: Tensor) -> Tensor:
    """Gaussian filter of [..., H, W] without padding: [..., H - 10, W - 10].

    As two products with banded matrices: up to some thousand pixels that is several times faster than convolving with
    one channel, forwards and backwards. On a GPU in double precision, since TF32 would cost three digits.
    """
    dtype = torch.float64 if planes.is_cuda else torch.float32
    with torch.autocast(planes.device.type, enabled=False):
        rows, columns = (_band(size, planes.device, dtype) for size in planes.shape[-2:])
        return (rows @ planes.to(dtype) @ columns.T).float()


def _band(size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """[size - 10, size]: row i holds the window's weights, starting at column i."""
    band = torch.zeros(size - WINDOW + 1, size, dtype=dtype)
    for offset in range(WINDOW):
        band.diagonal(offset).fill_(math.exp(-((offset - WINDOW // 2) ** 2) / (2 * SIGMA**2)))
    return (band / band.sum(1, keepdim=True)).to(device)
