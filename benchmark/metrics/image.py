"""Distances between images: PSNR and SSIM, one value per image.

Both take uint8 or float tensors [..., C, H, W] (float in [0, 1]) and return float32 [...]. Evaluators score what would
be stored, so they call ``quantize`` first; the functions themselves do not, so that they stay differentiable.

A mean over images is the mean of these values. The PSNR of the pooled squared error is another number: 22.97 instead of
30 dB for two images with squared errors of 1e-2 and 1e-4.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from adlbench.benchmark.errors import AdlbenchError

MAX_PSNR = 100.0  # dB, of two equal images: their error is 0 and its logarithm is not a number that can be averaged
WINDOW = 11
SIGMA = 1.5
K1, K2 = 0.01, 0.03
BLOCK, GPU_BLOCK = 64, 512  # rows and columns at a time: more are more products with zeros, fewer are more calls


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
    In float32 whatever autocast says, right to 1e-5; bfloat16 images are read as float32. Pixels are counted in 64 bits.
    """
    image, reference = _pair(image, reference)
    channels, height, width = image.shape[-3:]
    if min(height, width) < WINDOW or not channels:
        raise AdlbenchError(
            f"SSIM needs images of at least {WINDOW}x{WINDOW} pixels; these have {height}x{width} of {channels} channels"
        )
    block = GPU_BLOCK if image.is_cuda else BLOCK
    total = image.new_zeros(image.shape[:-3])
    for start in range(
        0, height - WINDOW + 1, block
    ):  # strip by strip, so that all that belongs to one stays in the cache
        rows = slice(start, start + block + WINDOW - 1)
        total = total + _similarities(image[..., rows, :], reference[..., rows, :], block)
    return total / (channels * (height - WINDOW + 1) * (width - WINDOW + 1))


def _similarities(image: Tensor, reference: Tensor, block: int) -> Tensor:
    """The sum over the windows inside [..., C, H, W]: [...]."""
    moments = torch.stack([image, reference, image * image, reference * reference, image * reference])
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = _blur_valid(moments, block).unbind(0)  # [..., C, H - 10, W - 10]
    product, squares = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
    luminance = (2 * product + K1**2) / (squares + K1**2)
    contrast_structure = (2 * (mean_xy - product) + K2**2) / (mean_xx + mean_yy - squares + K2**2)
    return (luminance * contrast_structure).flatten(-3).sum(-1)


def _pair(image: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    if image.shape != reference.shape or image.ndim < 3:
        raise AdlbenchError(
            f"two images are compared that differ in shape: {tuple(image.shape)} and {tuple(reference.shape)}; "
            "both must be [..., channels, height, width]"
        )
    return unit_float(image), unit_float(reference)


def _blur_valid(planes: Tensor, block: int) -> Tensor:
    """Gaussian filter of [..., H, W] without padding: [..., H - 10, W - 10].

    As products with banded matrices, of all rows at once and of ``block`` columns at a time: several times faster than
    convolving with one channel. One matrix for all columns would cost the square of the width. On a GPU in double
    precision, since TF32 would cost three digits.
    """
    dtype = torch.float64 if planes.is_cuda else torch.float32
    with torch.autocast(planes.device.type, enabled=False):
        mixed = _band(planes.shape[-2], planes.device, dtype) @ planes.to(dtype)
        flat, width = mixed.flatten(0, -2), planes.shape[-1]
        parts = [flat[:, start : start + block + WINDOW - 1] for start in range(0, width - WINDOW + 1, block)]
        columns = [part @ _band(part.shape[1], planes.device, dtype).T for part in parts]
        return torch.cat(columns, 1).view(*mixed.shape[:-1], width - WINDOW + 1).float()


@lru_cache(maxsize=16)
def _band(size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """[size - 10, size]: row i holds the window's weights, starting at column i."""
    with torch.inference_mode(False):  # it is kept, for whoever comes next
        band = torch.zeros(size - WINDOW + 1, size, dtype=dtype)
        for offset in range(WINDOW):
            band.diagonal(offset).fill_(math.exp(-((offset - WINDOW // 2) ** 2) / (2 * SIGMA**2)))
        return (band / band.sum(1, keepdim=True)).to(device)
