"""Pictures of rendered views, for people: truth, rendering, error, depth and its uncertainty side by side."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adlbench.benchmark.tasks.class_pictures import enlarge

Picture = NDArray[np.uint8]  # [H, W, 3]

SIDE = 128  # pixels of one panel, at least
GAP = 4
FULL_ERROR = 0.25  # mean absolute error over channels that is drawn in the brightest colour

# Dark to bright with rising lightness, so that it reads in grey too.
COLOURS = np.array(
    [(8, 6, 38), (62, 16, 100), (130, 32, 104), (196, 62, 80), (240, 120, 36), (252, 190, 60), (252, 255, 200)], float
)


def view_row(
    truth: Picture,
    rendering: Picture,
    depth: NDArray[np.float32],
    opacity: NDArray[np.float32],
    deviation: NDArray[np.float32] | None,
    bounds: tuple[float, float],
) -> Picture:
    """One row of panels for one view.

    The error is the mean over channels, bright where it is ``FULL_ERROR`` or more. Depth [H, W] runs from bright (near)
    to dark (far) between ``bounds`` and fades to white where nothing is. The standard deviation of depth, where there is
    one, is bright from a tenth of the depth range on.
    """
    near, far = bounds
    panels = [truth, rendering, error_picture(truth, rendering), depth_picture(depth, opacity, bounds)]
    if deviation is not None:
        panels.append(_fade(colour_map(deviation / (0.1 * (far - near))), opacity))
    enlarged = [enlarge(panel, SIDE) for panel in panels]
    gap = np.full((enlarged[0].shape[0], GAP, 3), 255, np.uint8)
    row = np.concatenate([part for panel in enlarged for part in (panel, gap)][:-1], axis=1)
    return np.concatenate([row, np.full((GAP, row.shape[1], 3), 255, np.uint8)])


def error_picture(truth: Picture, picture: Picture) -> Picture:
    """The absolute difference of two pictures [..., H, W, 3], mean over channels, bright from ``FULL_ERROR`` on."""
    return colour_map(np.abs(truth.astype(float) - picture.astype(float)).mean(-1) / 255 / FULL_ERROR)


def depth_picture(depth: NDArray[np.float32], opacity: NDArray[np.float32], bounds: tuple[float, float]) -> Picture:
    near, far = bounds
    return _fade(colour_map((far - depth) / (far - near)), opacity)


def colour_map(values: NDArray[np.floating]) -> Picture:
    """[..., H, W] in [0, 1], clipped, from dark to bright: uint8 [..., H, W, 3]."""
    position = np.clip(values, 0, 1) * (len(COLOURS) - 1)
    channels = [np.interp(position, np.arange(len(COLOURS)), COLOURS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def _fade(picture: Picture, opacity: NDArray[np.float32]) -> Picture:
    share = np.clip(opacity, 0, 1)[..., None]
    return (share * picture + (1 - share) * 255).round().astype(np.uint8)
