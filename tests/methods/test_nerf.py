"""NeRF against the paper's facts, a re-statement of its network, closed forms, and the pitfalls that are known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sphere_scene import context, orbit, photograph, schema, sphere_scene, views
from torch import Tensor, nn

from adlbench.benchmark.api import AbsentSplit, ArraySplit, Cameras, TrainingData
from adlbench.methods.nn.rays import Rays, camera_rays
from adlbench.methods.novel_view_synthesis.nerf import NeRF, NeRFNetwork, RadianceField

SMALL: dict[str, Any] = {
    "depth": 3,
    "width": 32,
    "position_frequencies": 4,
    "direction_frequencies": 2,
    "coarse_samples": 12,
    "fine_samples": 12,
    "batch_rays": 128,
    "learning_rate": 4e-3,
    "final_learning_rate": 4e-4,
    "precrop_steps": 5,
}


def method(data: TrainingData | None = None, steps: int = 0, seed: int = 0, **changes: Any) -> NeRF:
    made = NeRF(**(SMALL | changes))
    made.setup(data or sphere_scene(), context(seed=seed, steps=steps))
    run(made, steps)
    return made


def run(made: NeRF, steps: int, of: int | None = None) -> None:
    for _ in range(steps):
        made.step()
        made.context.step += 1
        made.context.progress = made.context.step / (of or steps)


def full_precision() -> Any:
    return torch.autocast("cpu", enabled=False)


# ------------------------------------------------------------------------------------------------------- the network
def test_size_of_the_papers_network() -> None:
    """0.596 M parameters in each of the two networks: 8 layers of 256, 63 and 27 inputs."""
    made = NeRF()
    made.setup(sphere_scene(), context())
    assert sum(p.numel() for p in made.field.coarse.parameters()) == 595_844
    assert made.num_parameters() == 2 * 595_844


def test_network_equals_figure_7_written_out() -> None:
    torch.manual_seed(0)
    net = NeRFNetwork(depth=8, width=24, skip=4, position_features=63, direction_features=27)
    position, direction = torch.randn(5, 7, 63), torch.randn(5, 27)
    h = position
    for i in range(8):
        if i == 5:  # the sixth layer sees the position again
            h = torch.cat([position, h], dim=-1)
        h = (h @ net.layers[i].weight.T + net.layers[i].bias).clamp_min(0)
    density = (h @ net.density.weight.T + net.density.bias)[..., 0]
    bottleneck = h @ net.feature.weight.T + net.feature.bias  # no activation
    seen = torch.cat([bottleneck, direction[:, None].expand(5, 7, 27)], dim=-1)
    hidden = (seen @ net.view.weight.T + net.view.bias).clamp_min(0)
    rgb = 1 / (1 + torch.exp(-(hidden @ net.colour.weight.T + net.colour.bias)))
    got = net(position, direction)
    torch.testing.assert_close(got[0], density, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(got[1], rgb, atol=1e-5, rtol=1e-4)


def test_density_does_not_depend_on_the_direction_and_colour_does() -> None:
    net = NeRFNetwork(4, 16, 4, 27, 15)
    position = torch.randn(2, 3, 27)
    first, second = (net(position, torch.randn(2, 15)) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert not torch.allclose(first[1], second[1])


# ------------------------------------------------------------------------------------------------- rendering of rays
class Slab(nn.Module):
    """Stands for a network: density ``sigma`` where the first encoded coordinate, along ``axis``, is above ``start``."""

    def __init__(self, axis: int, start: float, sigma: float, rgb: tuple[float, float, float] = (0.2, 0.4, 0.6)):
        super().__init__()
        self.axis, self.start, self.sigma, self.rgb = axis, start, sigma, rgb

    def forward(self, position: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
        density = torch.where(position[..., self.axis] > self.start, self.sigma, -1.0)
        return density, torch.tensor(self.rgb).expand(*density.shape, 3)


def field(stub: nn.Module | None = None, near: float = 1.0, far: float = 5.0, **changes: Any) -> RadianceField:
    data_schema = schema(views(1), near=near, far=far, scene_radius=1.0)
    made = RadianceField(NeRF(**(SMALL | {"coarse_samples": 64, "fine_samples": 128} | changes)), data_schema)
    if stub is not None:
        made.coarse = made.fine = stub  # type: ignore[assignment]
    return made


def wide_camera() -> Cameras:
    """At the origin, along z, 90 degrees wide: the rays in the corners are 1.5 times as long as their z-depth."""
    return Cameras(torch.eye(4)[None], torch.tensor([[[4.0, 0, 4], [0, 4, 4], [0, 0, 1]]]), 8, 8)


def test_depth_of_a_wall_is_z_depth() -> None:
    """A wall at z = 3 has depth 3 in all of the picture, not the distance along the ray, and little uncertainty."""
    made = method()
    made.field = field(Slab(axis=2, start=3.0, sigma=1e4))
    rendering = made.predictor().render(wide_camera())
    torch.testing.assert_close(rendering.depth, torch.full((1, 8, 8), 3.0), atol=0.08, rtol=0)
    torch.testing.assert_close(rendering.rgb[0, 0, 0], torch.tensor([0.2, 0.4, 0.6]))
    assert rendering.extras is not None
    assert rendering.extras["depth_variance"].max() < 1e-3
    assert rendering.opacity.min() > 0.999


def test_lengths_are_true_lengths() -> None:
    """Fog from z = 1 to z = 5 with a clear end: opacity 1 - exp(-sigma 4 |d|), so the corners are denser."""
    rays = camera_rays(wide_camera())
    flat = Rays(rays.origins.view(-1, 3), rays.directions.view(-1, 3))

    class Fog(Slab):
        def forward(self, position: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
            density, rgb = super().forward(position, direction)
            return torch.where(position[..., 2] < 4.999, density, -1.0), rgb

    fine = field(Fog(axis=2, start=0.0, sigma=0.2)).render(flat, full_precision)[1]
    expected = 1 - torch.exp(-0.2 * 4 * flat.directions.norm(dim=-1))
    torch.testing.assert_close(fine.opacity, expected, atol=5e-3, rtol=0)


def test_what_nothing_stops_is_background() -> None:
    """Negative raw density is no density, in the endless last interval too: the ray shows exactly the background."""
    rays = Rays(torch.zeros(4, 3), torch.tensor([[0.0, 0, 1]] * 4))
    made = field(Slab(axis=2, start=1e9, sigma=1.0))
    made.background = torch.tensor([1.0, 0.5, 0.25])
    for rendering in made.render(rays, full_precision):
        assert torch.equal(rendering.rgb, made.background.expand(4, 3))
        assert rendering.opacity.max() == 0


def test_fine_samples_gather_where_the_coarse_weights_are() -> None:
    fine = field(Slab(axis=2, start=3.0, sigma=1e4)).render(
        Rays(torch.zeros(1, 3), torch.tensor([[0.0, 0, 1]])), full_precision, torch.Generator().manual_seed(0)
    )[1]
    near_wall = ((fine.depths - 3).abs() < 0.15).float().sum().item()
    assert fine.depths.shape == (1, 64 + 128)
    assert fine.depths.diff().min() >= 0
    assert near_wall > 0.95 * 128


def test_no_gradient_reaches_the_coarse_network_through_the_fine_samples() -> None:
    made = field()
    rays = Rays(torch.zeros(3, 3), F.normalize(torch.randn(3, 3), dim=-1))
    made.render(rays, full_precision, torch.Generator().manual_seed(0))[1].rgb.sum().backward()
    assert all(p.grad is None for p in made.coarse.parameters())
    assert all(p.grad is not None for p in made.fine.layers.parameters())


def test_a_ray_that_misses_the_sphere_is_background_even_in_fog() -> None:
    made = field(Slab(axis=2, start=-1e9, sigma=10.0), clip_to_sphere=True)
    rays = Rays(torch.tensor([[0.0, 0, -3], [0, 2, -3]]), torch.tensor([[0.0, 0, 1], [0, 0, 1]]))
    fine = made.render(rays, full_precision)[1]
    torch.testing.assert_close(fine.opacity, torch.tensor([1.0, 0.0]))
    assert fine.depths[0].min() == pytest.approx(2.0)
    assert fine.depths[0].max() == pytest.approx(4.0)


def test_density_noise_only_in_training() -> None:
    rays = Rays(torch.zeros(2, 3), torch.tensor([[0.0, 0, 1]] * 2))
    made = field(Slab(axis=2, start=3.0, sigma=0.1), density_noise=1.0)
    quiet, again = (made.render(rays, full_precision)[1].rgb for _ in range(2))
    noisy = made.render(rays, full_precision, torch.Generator().manual_seed(0))[1].rgb
    assert torch.equal(quiet, again)
    assert not torch.allclose(quiet, noisy)


def test_rendering_is_in_float32_under_bfloat16() -> None:
    rays = Rays(torch.zeros(4, 3), torch.randn(4, 3))
    fine = field().render(rays, lambda: torch.autocast("cpu", torch.bfloat16))[1]
    assert {x.dtype for x in fine} == {torch.float32}


# ----------------------------------------------------------------------------------------------------------- training
def test_starts_in_the_middle_of_the_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    crops: list[float] = []
    made = method(precrop_steps=2, precrop_fraction=0.4)
    sample = type(made.views).sample_rays

    def spy(self: Any, n: int, generator: torch.Generator, crop: float = 1.0) -> Any:
        crops.append(crop)
        return sample(self, n, generator, crop)

    monkeypatch.setattr(type(made.views), "sample_rays", spy)
    run(made, 4)
    assert crops == [0.4, 0.4, 1.0, 1.0]


def test_learning_rate_decays_exponentially_with_progress() -> None:
    made = method()
    rates = []
    for progress in (0.0, 0.5, 1.0):
        made.context.progress = progress
        made.step()
        rates.append(made.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([4e-3, 4e-3 * 0.1**0.5, 4e-4])


def test_learns_colour_and_depth_of_a_sphere() -> None:
    made = method(sphere_scene(number=16, size=24), steps=300, clip_to_sphere=True, learning_rate=1.5e-2)
    cameras = orbit(4, 24, turn=0.2)
    truth, depth = photograph(cameras)
    rendering = made.predictor().render(cameras)
    error = (rendering.rgb - truth.float() / 255).square().mean()
    assert -10 * error.log10() > 21
    core = depth > 0
    core = F.conv2d(core.float()[:, None], torch.ones(1, 1, 5, 5), padding=2)[:, 0] == 25  # away from the silhouette
    assert (rendering.depth - depth)[core].abs().mean() < 0.4  # a flat disc through the centre would be off by 0.55
    assert rendering.opacity[core].min() > 0.7


def test_one_view_trains_and_renders() -> None:
    made = method(sphere_scene(number=1), steps=3)
    assert torch.isfinite(made.predictor().render(orbit(1, 16)).rgb).all()


def test_pictures_are_clipped_and_do_not_depend_on_the_chunks() -> None:
    made = method(steps=2)
    with torch.no_grad():
        made.field.background.fill_(1.5)
    predictor = made.predictor()
    cameras = orbit(2, 16)
    whole = predictor.render(cameras)
    assert whole.rgb.max() <= 1
    parts = type(predictor)(predictor.field, predictor.autocast, chunk=100).render(cameras)
    torch.testing.assert_close(whole.rgb, parts.rgb, atol=1e-5, rtol=0)
    torch.testing.assert_close(whole.depth, parts.depth, atol=1e-4, rtol=0)


def test_a_predictor_is_not_changed_by_further_training() -> None:
    made = method(steps=2)
    predictor, cameras = made.predictor(), orbit(1, 8)
    before = predictor.render(cameras).rgb
    run(made, 3)
    assert torch.equal(predictor.render(cameras).rgb, before)
    assert not torch.equal(made.predictor().render(cameras).rgb, before)


def test_same_seed_same_weights_and_a_resumed_run_is_the_same_to_the_bit() -> None:
    whole = method()
    run(whole, 6)
    first = method()
    run(first, 3, of=6)
    state, random = first.state_dict(), first.context.generator("rays").get_state()
    resumed = method()
    resumed.load_state_dict(state)
    resumed.context.generator("rays").set_state(random)
    resumed.context.step, resumed.context.progress = 3, 0.5
    run(resumed, 3, of=6)
    for (name, value), other in zip(whole.field.state_dict().items(), resumed.field.state_dict().values()):
        assert torch.equal(value, other), name
    assert not torch.equal(method(seed=1).field.fine.density.weight, method().field.fine.density.weight)


def test_is_restored_without_data() -> None:
    made, cameras = method(steps=2), orbit(1, 8)
    restored = NeRF(**SMALL)
    restored.setup(TrainingData(schema(views(12)), AbsentSplit(12)), context())
    restored.load_state_dict(made.state_dict())
    assert torch.equal(restored.predictor().render(cameras).rgb, made.predictor().render(cameras).rgb)


def test_an_all_white_scene_stays_finite() -> None:
    split = views(4)
    white = ArraySplit(**{**split.fields, "image": torch.full_like(split.fields["image"], 255)})
    made = method(TrainingData(schema(split), white), steps=20)
    assert all(torch.isfinite(p).all() for p in made.field.parameters())
    assert made.predictor().render(orbit(1, 8)).rgb.mean() > 0.95
