"""Occlusion sensitivity: what a class loses when a window of the image is covered.

M. Zeiler and R. Fergus, Visualizing and understanding convolutional networks, ECCV 2014, section 4.2. Windows overlap; a
pixel's value is the mean over the windows that cover it (captum's convention, weights on).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor


def occlusion_sensitivity(
    score: Callable[[Tensor], Tensor],
    image: Tensor,
    target: Tensor,
    *,
    window: int,
    stride: int,
    baseline: float = 0.0,
    batch_size: int = 256,
) -> Tensor:
    """[B, H, W]: how much the score of class ``target`` [B] falls on average when a pixel of ``image`` [B, C, H, W] is
    covered by ``baseline``. ``score`` maps images to [B, K] and is called without gradients."""
    height, width = image.shape[-2:]
    rows = torch.arange(len(image))
    total = torch.zeros(len(image), height, width, dtype=torch.float64)
    covers = torch.zeros(height, width, dtype=torch.float64)
    windows = list(_windows(height, width, window, stride))
    with torch.no_grad():
        base = score(image)[rows, target].double().cpu()
        per_call = max(1, batch_size // len(image))
        for start in range(0, len(windows), per_call):
            part = windows[start : start + per_call]
            covered = image.repeat(len(part), 1, 1, 1)
            for number, (top, left) in enumerate(part):
                block = covered[number * len(image) : (number + 1) * len(image)]
                block[..., top : top + window, left : left + window] = baseline
            scores = score(covered)[torch.arange(len(covered)), target.repeat(len(part))].double().cpu()
            for (top, left), values in zip(part, scores.view(len(part), -1)):
                total[:, top : top + window, left : left + window] += (base - values)[:, None, None]
                covers[top : top + window, left : left + window] += 1
    return (total / covers).float()


def _windows(height: int, width: int, window: int, stride: int) -> Iterator[tuple[int, int]]:
    """Upper left corners. The last window of a row or column may stand over the edge, so that every pixel is covered."""
    counts = [1 + max(0, math.ceil((side - window) / stride)) for side in (height, width)]
    for row in range(counts[0]):
        for column in range(counts[1]):
            yield row * stride, column * stride
