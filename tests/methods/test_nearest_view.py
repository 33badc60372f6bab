"""The nearest training view."""

from __future__ import annotations

import torch
from sphere_scene import DISTANCE, context, orbit, schema, sphere_scene, views

from adlbench.benchmark.api import AbsentSplit, Cameras, TrainingData
from adlbench.methods.novel_view_synthesis.nearest_view import NearestView


def trained(data: TrainingData) -> NearestView:
    method = NearestView()
    method.setup(data, context())
    method.step()
    return method


def test_a_training_camera_gets_its_own_picture_and_one_between_the_nearer() -> None:
    data = sphere_scene(number=12)
    predictor = trained(data).predictor()
    rendering = predictor.render(orbit(12, 16))
    stored = data.train.all()["image"]
    assert torch.equal((rendering.rgb * 255).round().to(torch.uint8), stored)
    turned = predictor.render(orbit(12, 16, turn=0.1))  # a third of the way to the next camera would be 0.17
    assert torch.equal((turned.rgb * 255).round().to(torch.uint8), stored)


def test_a_camera_that_looks_away_is_not_the_nearest() -> None:
    """Two cameras in nearly the same place, one of which is turned around."""
    split = views(6)
    away = split.fields["world_to_camera"][:1].clone()
    away[:, :3] = torch.diag(torch.tensor([-1.0, 1.0, -1.0])) @ away[:, :3]
    fields = {name: torch.cat([value, value[:1]]) for name, value in split.fields.items()}
    fields["world_to_camera"][-1], fields["image"][-1] = away[0], 0
    predictor = trained(TrainingData(schema(split), type(split)(**fields))).predictor()
    assert predictor.render(orbit(6, 16, turn=0.02)).rgb[0].mean() > 0.1


def test_depth_is_that_of_the_scene_and_opacity_is_full() -> None:
    rendering = trained(sphere_scene()).predictor().render(orbit(2, 16))
    torch.testing.assert_close(rendering.depth, torch.full((2, 16, 16), DISTANCE))
    assert rendering.opacity.min() == 1


def test_another_size_is_resampled() -> None:
    cameras = orbit(2, 16)
    rendering = trained(sphere_scene()).predictor().render(Cameras(cameras.world_to_camera, cameras.intrinsics, 8, 12))
    assert rendering.rgb.shape == (2, 12, 8, 3)
    assert rendering.depth.shape == rendering.opacity.shape == (2, 12, 8)


def test_one_view_is_enough_and_the_state_holds_the_views() -> None:
    data = sphere_scene(number=1)
    method = trained(data)
    restored = NearestView()
    restored.setup(TrainingData(data.schema, AbsentSplit(1)), context())
    restored.load_state_dict(method.state_dict())
    cameras = orbit(3, 16)
    assert torch.equal(restored.predictor().render(cameras).rgb, method.predictor().render(cameras).rgb)
