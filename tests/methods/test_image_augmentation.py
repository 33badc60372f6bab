from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from adlbench.benchmark.api import DataError
from adlbench.methods.base.images import normalise, random_affine, random_shift, to_unit


def images(count: int = 6, channels: int = 2, height: int = 12, width: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, channels, height, width), generator=generator, dtype=torch.uint8)


def test_ranges():
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_unit(levels), torch.arange(256) / 255.0)
    assert (float(normalise(levels).min()), float(normalise(levels).max())) == (-1.0, 1.0)
    with pytest.raises(DataError, match="uint8"):
        to_unit(torch.zeros(3))


def test_random_shift_is_one_of_the_shifts():
    image = images(count=40)
    moved = random_shift(image, 1, torch.Generator().manual_seed(1))
    assert moved.dtype == torch.uint8
    padded = torch.nn.functional.pad(image, (1, 1, 1, 1))
    seen = set()
    for before, after in zip(padded, moved):
        matches = [(y, x) for y in range(3) for x in range(3) if torch.equal(before[:, y : y + 12, x : x + 16], after)]
        assert len(matches) == 1
        seen |= set(matches)
    assert len(seen) == 9
    assert random_shift(image, 0, torch.Generator()) is image


def test_augmentation_depends_on_the_generator_only():
    image = images()
    for augment in (lambda g: random_shift(image, 2, g), lambda g: random_affine(image, g, degrees=20, scale=0.1)):
        first, second, other = (augment(torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
        assert torch.equal(first, second)
        assert not torch.equal(first, other)


def test_nothing_asked_for_changes_nothing():
    image = images()
    assert random_affine(image, torch.Generator()) is image
    tiny = random_affine(image, torch.Generator().manual_seed(0), degrees=1e-6)
    assert torch.equal(tiny, image)  # the grid is aligned with the pixels


@pytest.mark.parametrize(
    "strength", [{"degrees": 30.0}, {"scale": 0.3}, {"shift": 3.0}, {"degrees": 30.0, "scale": 0.3, "shift": 3.0}]
)
def test_affine_against_scipy(strength: dict[str, float]):
    """The same map in pixels, for images that are not square."""
    smooth = ndimage.gaussian_filter(images(height=20, width=32).numpy().astype(float), (0, 0, 2, 2))
    image = torch.tensor(smooth).round().to(torch.uint8)
    moved = random_affine(image, torch.Generator().manual_seed(5), **strength)
    draws = torch.rand((4, len(image)), generator=torch.Generator().manual_seed(5)) * 2 - 1
    centre = np.array([9.5, 15.5])  # row, column
    for index, (turn, growth, dx, dy) in enumerate(draws.T.tolist()):
        angle, zoom = math.radians(turn * strength.get("degrees", 0.0)), 1 + growth * strength.get("scale", 0.0)
        cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
        matrix = np.array([[cos, sin], [-sin, cos]])  # from output (row, column) to input
        move = np.array([dy, dx]) * strength.get("shift", 0.0)
        for channel in range(2):
            expected = ndimage.affine_transform(
                image[index, channel].double().numpy(),
                matrix,
                centre + move - matrix @ centre,
                order=1,
                mode="grid-constant",
            )
            assert np.abs(expected - moved[index, channel].numpy()).max() <= 0.51


def test_an_empty_surrounding_is_black():
    image = torch.full((8, 1, 8, 8), 255, dtype=torch.uint8)
    moved = random_affine(image, torch.Generator().manual_seed(0), shift=4.0)
    assert int(moved.min()) == 0
    assert int(moved.max()) == 255
