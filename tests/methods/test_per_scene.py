"""Sampling of rays from posed images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from sphere_scene import RADIUS, context, schema, sphere_scene, views
from torch import Tensor

from adlbench.benchmark.api import ArraySplit, Context, DataError, Predictor, TrainingData
from adlbench.methods.base.per_scene import PerSceneMethod, PosedImages


class Nothing(PerSceneMethod):
    def setup(self, data: TrainingData, context: Context) -> None:
        self.views = self.posed_images(data, context)

    def step(self) -> Mapping[str, Tensor]:
        return {}

    def predictor(self) -> Predictor:
        raise NotImplementedError


def posed(data: TrainingData) -> PosedImages:
    method = Nothing()
    method.setup(data, context())
    return method.views


def test_a_ray_carries_the_colour_that_it_meets() -> None:
    """A sphere coloured by its normal: the colour of a sampled pixel is that of the point where its ray arrives."""
    scene = posed(sphere_scene(size=32))
    rays, rgb = scene.sample_rays(4000, torch.Generator().manual_seed(0))
    a, b = rays.directions.square().sum(-1), (rays.origins * rays.directions).sum(-1)
    discriminant = b * b - a * (rays.origins.square().sum(-1) - RADIUS**2)
    hit = discriminant > 0
    depth = (-b - discriminant.clamp_min(0).sqrt()) / a
    normal = (rays.origins + depth[:, None] * rays.directions) / RADIUS
    assert 0.2 < hit.float().mean() < 0.8
    torch.testing.assert_close(rgb[hit], 0.5 + 0.4 * normal[hit], atol=0.003, rtol=0)
    torch.testing.assert_close(rgb[~hit], torch.ones_like(rgb[~hit]))


def test_all_views_and_pixels_are_drawn_and_crop_keeps_to_the_middle() -> None:
    scene = posed(sphere_scene(number=3, size=8))
    marked = torch.arange(3 * 64).view(3, 8, 8, 1)
    scene = scene._replace(images=torch.cat([marked % 256] * 3, -1).to(torch.uint8))
    generator = torch.Generator().manual_seed(0)
    seen = (scene.sample_rays(5000, generator)[1][:, 0] * 255).round().long().unique()
    assert torch.equal(seen, torch.arange(192))
    seen = (scene.sample_rays(5000, generator, crop=0.5)[1][:, 0] * 255).round().long().unique()
    assert torch.equal(seen, marked[:, 2:6, 2:6].flatten())
    assert len(scene.sample_rays(50, generator, crop=0.01)[1].unique()) <= 3  # at least one pixel a view


def test_draws_follow_the_generator() -> None:
    scene = posed(sphere_scene())
    first, again = (scene.sample_rays(64, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first[1], again[1])
    assert torch.equal(first[0].directions, again[0].directions)


def test_the_images_are_no_part_of_the_state() -> None:
    method = Nothing()
    method.setup(sphere_scene(), context())
    assert method.state_dict() == {}


@pytest.mark.parametrize("name", ["world_to_camera", "intrinsics"])
def test_a_camera_that_is_not_a_number_is_named(name: str) -> None:
    split = views(5)
    fields = {key: value.clone() for key, value in split.fields.items()}
    fields[name][3, 0, 0] = float("nan")
    with pytest.raises(DataError, match=f"{name} of training view 3"):
        posed(TrainingData(schema(split), ArraySplit(**fields)))


def test_wrong_images_and_no_images() -> None:
    split = views(2)
    floats = ArraySplit(**{**split.fields, "image": split.fields["image"].float()})
    with pytest.raises(DataError, match="uint8"):
        posed(TrainingData(schema(split), floats))
    empty = ArraySplit(**{key: value[:0] for key, value in split.fields.items()})
    with pytest.raises(DataError, match="no training views"):
        posed(TrainingData(schema(split), empty))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"fields": ("image",)}, "no intrinsics, world_to_camera"), ({"near": 0.0, "far": 0.0}, "no depth range")],
)
def test_skips_with_a_reason(changes: dict[str, Any], reason: str) -> None:
    assert reason in str(Nothing().skip(schema(views(2), **changes)))


def test_serves_a_posed_scene() -> None:
    assert Nothing().skip(schema(views(2))) is None
