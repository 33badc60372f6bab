"""3D Gaussian Splatting: density control, schedule, state, and learning, on a sphere with a closed form."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sphere_scene import RADIUS, context, orbit, photograph, schema, sphere_scene, views
from torch import Tensor

from adlbench.benchmark.api import AbsentSplit, ArraySplit, DataError, TrainingData
from adlbench.methods.base.per_scene import PosedImages
from adlbench.methods.nn.rays import camera_to_world
from adlbench.methods.nn.ssim_loss import ssim
from adlbench.methods.novel_view_synthesis.gaussian_splatting import (
    GaussianSplatting,
    coloured_points,
    scene_extent,
)

ITERATIONS = 300  # the whole schedule, in the units of the intervals below
SMALL: dict[str, Any] = {
    "iterations": ITERATIONS,
    "initial_points": 150,
    "sh_every": 30,
    "means_lr": 1.6e-3,
    "final_means_lr": 1.6e-5,
    "densify_from": 20,
    "densify_until": 200,
    "densify_every": 20,
    "reset_every": 100,
}


def method(data: TrainingData | None = None, seed: int = 0, **changes: Any) -> GaussianSplatting:
    made = GaussianSplatting(**(SMALL | changes))
    made.setup(data or sphere_scene(), context(seed=seed))
    return made


def run(made: GaussianSplatting, steps: int, of: int = ITERATIONS) -> dict[str, Tensor]:
    values: dict[str, Tensor] = {}
    for _ in range(steps):
        values = dict(made.step())
        made.context.step += 1
        made.context.progress = made.context.step / of
    return values


def psnr(made: GaussianSplatting) -> float:
    """On views between the training views."""
    cameras = orbit(5, 16, turn=0.3)
    truth, _ = photograph(cameras)
    with torch.no_grad():
        rgb = made.predictor().render(cameras).rgb
    return float(-10 * torch.log10((rgb - truth / 255).square().mean()))


# ----------------------------------------------------------------------------------------------------------- learning
def test_it_learns_the_sphere() -> None:
    """Colour between the training views, opacity and depth."""
    made = method()
    start = psnr(made)
    values = run(made, ITERATIONS)
    assert psnr(made) > max(start + 8, 22)
    assert int(values["num_gaussians"]) == len(made.cloud) > 150
    assert made.context.samples == ITERATIONS * 16 * 16  # rays
    cameras = orbit(5, 16, turn=0.3)
    _, depth = photograph(cameras)
    with torch.no_grad():
        view = made.predictor().render(cameras)
    assert view.rgb.shape == (5, 16, 16, 3)
    assert view.depth.shape == view.opacity.shape == (5, 16, 16)
    assert view.rgb.min() >= 0
    assert view.rgb.max() <= 1
    inner = torch.nn.functional.avg_pool2d((depth > 0).float(), 3, 1, 1) == 1
    assert float(view.opacity[inner].mean()) > 0.9
    assert float((view.depth - depth)[inner].abs().mean()) < 0.3 * RADIUS


def test_loss_is_l1_and_ssim_at_eight_to_two() -> None:
    made = method()
    before = made.predictor()
    loss = float(made.step()["loss"])
    seen = set(range(12)) - set(made.order.tolist())
    cameras = orbit(12, 16)
    truth, _ = photograph(cameras)
    (index,) = seen
    with torch.no_grad():
        rgb = before.render(cameras).rgb[index].permute(2, 0, 1)
    target = truth[index].permute(2, 0, 1).float() / 255
    assert loss == pytest.approx(float(0.8 * (rgb - target).abs().mean() + 0.2 * (1 - ssim(rgb, target))), rel=1e-4)


def test_one_view_in_random_order_until_all_were_seen() -> None:
    made = method()
    seen = []
    for _ in range(24):
        left = set(made.order.tolist()) or set(range(12))
        run(made, 1)
        seen.append((left - set(made.order.tolist())).pop())
    assert sorted(seen[:12]) == sorted(seen[12:]) == list(range(12))
    assert seen[:12] != seen[12:]


def test_a_scene_with_one_view() -> None:
    made = method(sphere_scene(number=1), reset_every=1000)
    assert made.extent == pytest.approx(0.8)  # of the scene: one camera has none
    run(made, 100)
    cameras = orbit(1, 16)
    with torch.no_grad():
        rgb = made.predictor().render(cameras).rgb
    assert float((rgb - photograph(cameras)[0] / 255).abs().mean()) < 0.1


# ---------------------------------------------------------------------------------------------------- density control
def prepared(gradient: list[float], scale: list[float], opacity: list[float], **changes: Any) -> GaussianSplatting:
    """Gaussians on the x axis with these mean gradients over 4 views, largest scales (of the extent) and opacities."""
    count = len(gradient)
    made = method(initial_points=count, **changes)
    run(made, 2)
    with torch.no_grad():
        cloud = made.cloud
        cloud.means.copy_(torch.arange(count).float() * torch.tensor([[1.0], [0.0], [0.0]]))
        size = torch.tensor(scale) * made.extent
        cloud.log_scales.copy_(torch.stack([0.5 * size, size, 0.2 * size]).log())
        cloud.opacity_logits.copy_(torch.tensor(opacity).logit())
        cloud.quaternions.copy_(torch.tensor([[1.0], [0], [0], [0]]).expand(4, count))
    made.gradient_statistics = torch.tensor([[4 * value for value in gradient], [4.0] * count])
    made.iteration = 50
    return made


def test_small_ones_are_cloned_and_large_ones_split() -> None:
    """Exactly at the threshold of 2e-4, and at 1 % of the extent."""
    made = prepared([1e-4, 3e-4, 3e-4], [0.02, 0.009, 0.011], [0.5, 0.6, 0.7])
    extent, moment = made.extent, made.optimizer.state[made.cloud.means]["exp_avg"].clone()
    made._control_density()
    cloud = made.cloud
    assert len(cloud) == 5  # the first, the second, its clone, two halves of the third
    torch.testing.assert_close(cloud.means[:, :3], torch.tensor([[0.0, 1, 1], [0, 0, 0], [0, 0, 0]]))
    assert cloud.opacities.tolist() == pytest.approx([0.5, 0.6, 0.6, 0.7, 0.7])
    assert (cloud.scales.amax(0) / extent).tolist() == pytest.approx([0.02, 0.009, 0.009, 0.011 / 1.6, 0.011 / 1.6])
    offset = (cloud.means.detach()[:, 3:] - torch.tensor([[2.0], [0], [0]])) / (0.011 * extent)
    assert float(offset.abs().min()) > 0  # samples of the parent
    assert float(offset.abs().max()) < 5
    state = made.optimizer.state[cloud.means]["exp_avg"]
    assert torch.equal(state[:, :2], moment[:, :2])
    assert not state[:, 2:].any()
    assert made.gradient_statistics.shape == (2, 5)
    assert not made.gradient_statistics.any()


def test_faint_ones_are_pruned_and_huge_ones_only_after_a_reset() -> None:
    for iteration, left in ((50, [0.9, 0.006, 0.5]), (101, [0.9, 0.006])):
        made = prepared([0.0] * 4, [0.05, 0.05, 0.05, 0.11], [0.9, 0.004, 0.006, 0.5])
        made.iteration = iteration
        made._control_density()
        assert made.cloud.opacities.tolist() == pytest.approx(left)


def test_something_is_left_when_all_are_faint() -> None:
    made = prepared([0.0, 0.0], [0.05, 0.05], [0.001, 0.002])
    made._control_density()
    assert made.cloud.opacities.tolist() == pytest.approx([0.002])


def test_a_limit_takes_the_steepest() -> None:
    made = prepared([3e-4, 9e-4, 5e-4, 1e-5], [0.005] * 4, [0.5] * 4, max_gaussians=6)
    made._control_density()
    assert sorted(made.cloud.means[0].tolist()) == [0, 1, 1, 2, 2, 3]


def test_gradient_is_in_normalised_device_coordinates_and_averaged_over_views_that_see_it() -> None:
    """Pixels: dL/dx_ndc = dL/dx_pixel W / 2. A size that is not square tells x from y."""
    split = views(3, 16)
    cut = ArraySplit(**(split.fields | {"image": split.fields["image"][:, :, :12]}))
    made = method(TrainingData(schema(cut), cut), initial_points=40)
    assert cut.fields["image"].shape[1:3] == (16, 12)
    with torch.no_grad():
        made.cloud.means[:, 0] = torch.tensor([0.0, 0.0, 40.0])  # out of sight
    view_index = int(torch.randperm(3, generator=context().generator("views"))[0])
    cloud = made.predictor().cloud.requires_grad_()
    target = cut.fields["image"][view_index].permute(2, 0, 1).float() / 255
    view = cloud.render(
        cut.fields["world_to_camera"][view_index],
        cut.fields["intrinsics"][view_index],
        12,
        16,
        torch.ones(3),
        degree=0,
        near=0.2,
        max_alpha=0.99,
    )
    loss = 0.8 * (view.rgb - target).abs().mean() + 0.2 * (1 - ssim(view.rgb, target))
    (pixels,) = torch.autograd.grad(loss, view.means2d)
    run(made, 1)
    torch.testing.assert_close(made.gradient_statistics[0], ((pixels[0] * 6) ** 2 + (pixels[1] * 8) ** 2).sqrt())
    assert torch.equal(made.gradient_statistics[1], view.visible.float())
    assert made.gradient_statistics[1, 0] == 0
    assert made.gradient_statistics[1].sum() > 10


# ----------------------------------------------------------------------------------------------------------- schedule
def test_events_fall_due_at_the_papers_iterations(monkeypatch: pytest.MonkeyPatch) -> None:
    """30,000 steps as in the paper, and the same schedule compressed into 3,000."""
    for steps in (30_000, 3_000):
        made = GaussianSplatting(initial_points=10)
        made.setup(sphere_scene(number=2, size=8), context())
        densified: list[int] = []
        reset: list[int] = []
        monkeypatch.setattr(made, "_control_density", lambda: densified.append(made.iteration))  # noqa: B023
        name = "adlbench.methods.novel_view_synthesis.gaussian_splatting.lower_opacities"
        monkeypatch.setattr(name, lambda *_: reset.append(made.iteration))  # noqa: B023
        degrees = []
        for step in range(steps):
            made._advance(int(step / steps * made.iterations + 1e-6))
            degrees.append(made._degree)
        assert densified == list(range(600, 15_000, 100))
        assert reset == [3000, 6000, 9000, 12_000]
        assert [degrees.index(d) * 30_000 // steps for d in range(4)] == [0, 1000, 2000, 3000]


def test_learning_rates() -> None:
    made = method(means_lr=1.6e-4, final_means_lr=1.6e-6)
    rates = {group["name"]: group["lr"] for group in made.optimizer.param_groups}
    assert rates.pop("means") == pytest.approx(1.6e-4 * made.extent)
    assert rates == {
        "log_scales": 5e-3,
        "quaternions": 1e-3,
        "opacity_logits": 5e-2,
        "sh_constant": 2.5e-3,
        "sh_rest": 2.5e-3 / 20,
    }
    assert all(group["eps"] == 1e-15 for group in made.optimizer.param_groups)
    for iteration, factor in ((0, 1.0), (ITERATIONS // 2, 0.1), (ITERATIONS, 0.01)):
        made._advance(iteration)
        assert made.optimizer.param_groups[0]["lr"] == pytest.approx(1.6e-4 * factor * made.extent)


def test_extent_is_1_1_times_the_radius_of_the_cameras() -> None:
    made = method(sphere_scene(number=12))
    assert made.extent == pytest.approx(1.1 * 3 * 0.9, rel=1e-5)  # a circle of that radius
    assert scene_extent(made.views._replace(camera_to_world=made.views.camera_to_world[:1])) == 0


def test_statistics_stop_when_densification_does() -> None:
    made = method(densify_until=20)
    run(made, 22)
    assert made.iteration > made.densify_until
    count = made.gradient_statistics[1].sum()
    run(made, 5)
    assert made.gradient_statistics[1].sum() == count


# ------------------------------------------------------------------------------------------------------ initial points
def test_random_points_lie_in_the_scenes_sphere() -> None:
    scene = sphere_scene(scene_center=(1.0, 2.0, 3.0), scene_radius=0.5)
    made = method(scene, initial_points=3000)
    distance = (made.cloud.means.detach() - torch.tensor([[1.0], [2.0], [3.0]])).norm(dim=0)
    assert float(distance.max()) <= 0.5 + 1e-6
    assert float((distance < 0.25).float().mean()) == pytest.approx(1 / 8, abs=0.03)  # uniform in the volume
    torch.testing.assert_close(made.cloud.opacities, torch.full((3000,), 0.1))


def test_points_that_come_with_the_views_are_used_with_the_views_colours() -> None:
    split = views(4, 32)
    directions = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    surface = RADIUS * directions / directions.norm(dim=1, keepdim=True)
    centres = camera_to_world(split.fields["world_to_camera"])[:, :3, 3]
    own = surface.expand(4, -1, -1).clone()
    facing = (own * (centres[:, None] - own)).sum(-1) > 0.5  # NaN where a view does not see a point
    own[~facing] = math.nan
    data = ArraySplit(**split.fields, points=own)
    described = replace(schema(split), fields=(*schema(split).fields, "points"))
    made = method(TrainingData(described, data))
    assert len(made.cloud) == int(facing.any(0).sum())
    truth = 0.5 + 0.4 * made.cloud.means / RADIUS  # the sphere's colour is its normal
    colour = 0.5 + 0.28209479 * made.cloud.sh_constant
    assert float((colour - truth).detach().abs().median()) < 0.03
    run(made, 2)

    nothing = ArraySplit(**split.fields, points=torch.full((4, 3, 3), math.nan))
    with pytest.raises(DataError, match="none of their points is finite"):
        method(TrainingData(described, nothing))


def test_points_that_several_views_see_appear_once() -> None:
    images = torch.zeros(2, 4, 4, 3, dtype=torch.uint8)
    images[1] = 255
    pose = torch.eye(4).repeat(2, 1, 1)
    intrinsics = torch.tensor([[4.0, 0, 2], [0, 4, 2], [0, 0, 1]]).repeat(2, 1, 1)
    points = torch.tensor([[[0.0, 0, 1], [math.nan] * 3], [[0.0, 0, 1], [0.1, 0, 1]]])
    found, colours = coloured_points(points, PosedImages(images, intrinsics, pose, pose))
    torch.testing.assert_close(found, torch.tensor([[0.0, 0, 1], [0.1, 0, 1]]))
    torch.testing.assert_close(colours, torch.tensor([[0.5] * 3, [1.0] * 3]))


# -------------------------------------------------------------------------------------------------------------- state
def saved(made: GaussianSplatting) -> dict[str, Any]:
    """Through a file, as the engine does it."""
    buffer = io.BytesIO()
    torch.save({"method": made.state_dict(), "context": made.context.state_dict()}, buffer)
    buffer.seek(0)
    loaded: dict[str, Any] = torch.load(buffer, weights_only=True)
    return loaded


def test_resumed_training_is_the_uninterrupted_one_to_the_bit() -> None:
    """Saved in the middle of a round of views, between two density controls, with another number of Gaussians than at first."""
    whole, first, second = method(), method(), method(seed=1)
    run(whole, 130)
    run(first, 65)
    state = saved(first)
    assert len(first.cloud) != 150
    second.context = context()
    second.context.load_state_dict(state["context"])
    second.context.progress = second.context.step / ITERATIONS
    second.load_state_dict(state["method"])
    run(second, 65)
    assert len(second.cloud) == len(whole.cloud)
    for mine, others in zip(second.cloud.parameters(), whole.cloud.parameters()):
        assert torch.equal(mine, others)
    assert torch.equal(second.gradient_statistics, whole.gradient_statistics)


def test_state_loads_without_data_and_renders_the_same() -> None:
    made = method()
    run(made, 60)
    data = sphere_scene()
    restored = GaussianSplatting(**SMALL)
    restored.setup(TrainingData(data.schema, AbsentSplit(12)), context())
    restored.load_state_dict(saved(made)["method"])
    cameras = orbit(2, 16)
    with torch.no_grad():
        mine, others = restored.predictor().render(cameras), made.predictor().render(cameras)
    assert torch.equal(mine.rgb, others.rgb)
    assert torch.equal(mine.depth, others.depth)
    assert restored.num_parameters() == made.num_parameters() == len(made.cloud) * 59


def test_predictor_is_frozen() -> None:
    made = method()
    cameras = orbit(1, 16)
    predictor = made.predictor()
    with torch.no_grad():
        before = predictor.render(cameras).rgb
    run(made, 30)
    with torch.no_grad():
        assert torch.equal(predictor.render(cameras).rgb, before)


def test_it_says_what_it_cannot_serve() -> None:
    described = sphere_scene().schema
    assert GaussianSplatting().skip(described) is None
    assert GaussianSplatting().skip(replace(described, near=0.0, far=0.0)) is None  # unbounded is fine
    assert "world_to_camera" in str(GaussianSplatting().skip(replace(described, fields=("image", "intrinsics"))))


@pytest.mark.needs_data
@pytest.mark.slow
def test_lego_in_five_hundred_steps() -> None:
    from adlbench.datasets.novel_view_synthesis.nerf_synthetic import NerfSynthetic

    dataset = NerfSynthetic(downscale=4)
    if dataset.missing():
        pytest.skip(dataset.missing() or "")
    made = GaussianSplatting(initial_points=4000, densify_every=500, max_gaussians=10_000)
    made.setup(TrainingData(dataset.schema("lego"), dataset.load("lego", "train")), context())
    run(made, 500, of=500)
    test = dataset.load("lego", "test").all()
    cameras = replace(orbit(1, 50), world_to_camera=test["world_to_camera"], intrinsics=test["intrinsics"])
    with torch.no_grad():
        rgb = made.predictor().render(cameras).rgb
    errors = (rgb - test["image"] / 255).square().mean((1, 2, 3)).numpy()
    assert float(np.mean(-10 * np.log10(errors))) > 24
