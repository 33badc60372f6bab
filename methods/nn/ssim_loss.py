"""Structural similarity as a training loss."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from adlbench.benchmark.api import DataError
from adlbench.methods.nn.precision import full_precision

WINDOW, SIGMA = 11, 1.5
MARGIN = WINDOW // 2
C1, C2 = 0.01**2, 0.03**2
BLOCK, GPU_BLOCK = (
    64,
    512,
)  # pixels along an axis that one matrix filters: more are more products with zeros, fewer more calls


def ssim(image: Tensor, reference: Tensor) -> Tensor:
    """Mean structural similarity (Wang et al. 2004) of images [C, H, W] in [0, 1], a 0-d tensor; gradient for ``image`` only.

    Gaussian window 11x11 with sigma 1.5, and zeros beyond the border, as in the released code of 3D Gaussian Splatting.
    The metric of the benchmark leaves the border out instead: another number. In at least float32, autocast or not, since
    variances are differences of squares: bfloat16 images are read as float32. float32 values are right to 1e-6, gradients to
    1e-5 of the largest. Pixels are counted in 64 bits. Gradients are of first order.

    Raises DataError for images of different shapes, of integers, or without a pixel.
    """
    if image.shape != reference.shape or image.dim() != 3 or not image.numel():
        raise DataError(
            f"structural similarity of images {list(image.shape)} and {list(reference.shape)}; "
            "both must be [channels, height, width] with at least one pixel"
        )
    if not image.is_floating_point() or not reference.is_floating_point():
        raise DataError(f"structural similarity of {image.dtype} and {reference.dtype}; divide by 255 first")
    kind = torch.promote_types(image.dtype, torch.float32)
    value: Tensor = _Similarity.apply(image.to(kind), reference.detach().to(kind))
    return value


class _Similarity(torch.autograd.Function):
    """Strip by strip of the image, so that all that belongs to one stays in the cache. The gradient is found with the value:
    both need the same means, and nothing but the gradient itself is kept."""

    @staticmethod
    @full_precision
    def forward(ctx: Any, image: Tensor, reference: Tensor) -> Tensor:
        height, width = image.shape[1:]
        block = BLOCK if image.device.type == "cpu" else GPU_BLOCK
        x, y = (functional.pad(each, (MARGIN,) * 4) for each in (image, reference))
        gradient = torch.zeros_like(x) if ctx.needs_input_grad[0] else None
        total = image.new_zeros(())
        for start in range(0, height, block):
            rows = slice(start, min(start + block, height) + 2 * MARGIN)
            part, pull = _strip(x[:, rows], y[:, rows], block, gradient is not None)
            total += part
            if gradient is not None and pull is not None:
                gradient[:, rows] += pull
        if gradient is not None:
            inner = gradient[:, MARGIN : MARGIN + height, MARGIN : MARGIN + width]
            ctx.save_for_backward(inner / image.numel())
        return total / image.numel()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, pull: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * pull, None


def _strip(x: Tensor, y: Tensor, block: int, wants_gradient: bool) -> tuple[Tensor, Tensor | None]:
    """The sum of the similarities of [C, h + 10, W + 10], and its gradient for ``x``."""
    rows = _filter(x.shape[1] - 2 * MARGIN, x.dtype, x.device)
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = _along_rows(
        rows @ torch.stack([x, y, x * x, y * y, x * y]), block
    ).unbind(0)
    product, squares = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
    luminance, contrast = 2 * product + C1, 2 * (mean_xy - product) + C2
    over_luminance, over_contrast = 1 / (squares + C1), 1 / (mean_xx + mean_yy - squares + C2)
    over_both = over_luminance * over_contrast
    similarity = luminance * contrast * over_both
    if not wants_gradient:
        return similarity.sum(), None
    by_xx = -similarity * over_contrast
    by_xy = 2 * luminance * over_both
    by_x = 2 * (mean_y * (contrast - luminance) * over_both + mean_x * similarity * (over_contrast - over_luminance))
    to_x, to_xx, to_xy = (rows.t() @ _back_along_rows(torch.stack([by_x, by_xx, by_xy]), block)).unbind(0)
    return similarity.sum(), to_x + 2 * x * to_xx + y * to_xy


def _along_rows(planes: Tensor, block: int) -> Tensor:
    """[..., W + 10] -> [..., W], some columns at a time: a matrix for all of them would cost the square of the width."""
    width = planes.shape[-1] - 2 * MARGIN
    flat, out = planes.view(-1, planes.shape[-1]), planes.new_empty(*planes.shape[:-1], width)
    for start in range(0, width, block):
        size = min(block, width - start)
        matrix = _filter(size, planes.dtype, planes.device)
        torch.mm(
            flat[:, start : start + size + 2 * MARGIN], matrix.t(), out=out.view(-1, width)[:, start : start + size]
        )
    return out


def _back_along_rows(planes: Tensor, block: int) -> Tensor:
    """The adjoint: [..., W] -> [..., W + 10]."""
    width = planes.shape[-1]
    flat, out = planes.view(-1, width), planes.new_zeros(*planes.shape[:-1], width + 2 * MARGIN)
    for start in range(0, width, block):
        size = min(block, width - start)
        matrix = _filter(size, planes.dtype, planes.device)
        out.view(-1, out.shape[-1])[:, start : start + size + 2 * MARGIN].addmm_(flat[:, start : start + size], matrix)
    return out


@lru_cache(maxsize=16)
def _filter(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[size, size + 10]: row i holds the window's weights, from column i on."""
    offset = torch.arange(WINDOW, dtype=torch.float64) - MARGIN
    weight = torch.exp(-0.5 * (offset / SIGMA) ** 2)
    matrix = torch.zeros(size, size + 2 * MARGIN, dtype=torch.float64)
    for column, value in enumerate(weight / weight.sum()):
        matrix.diagonal(column).fill_(value)
    return matrix.to(device=device, dtype=dtype)
