"""NeRF with an occupancy grid: learning, the grid's effect, and state."""

from __future__ import annotations

import io
from typing import Any

import torch
from sphere_scene import context, orbit, photograph, sphere_scene

from adlbench.methods.nn.rays import Rays, camera_rays
from adlbench.methods.novel_view_synthesis.nerf_occupancy import OccupancyNeRF

SMALL: dict[str, Any] = {
    "depth": 3,
    "width": 32,
    "skip_layer": 1,
    "position_frequencies": 4,
    "direction_frequencies": 2,
    "batch_rays": 256,
    "batch_samples": 1500,
    "grid_resolution": 16,
    "steps_across": 32,
    "grid_warmup": 64,
    "grid_decay": 0.5,
    "learning_rate": 4e-3,
    "final_learning_rate": 4e-4,
    "precrop_steps": 5,
}


def method(steps: int = 0, **changes: Any) -> OccupancyNeRF:
    made = OccupancyNeRF(**(SMALL | changes))
    made.setup(sphere_scene(), context(steps=steps))
    run(made, steps, steps)
    return made


def run(made: OccupancyNeRF, steps: int, of: int) -> None:
    for _ in range(steps):
        made.step()
        made.context.step += 1
        made.context.progress = made.context.step / of


def flat(rays: Rays) -> Rays:
    return Rays(*(x.reshape(-1, 3) for x in rays))


def test_it_learns_the_sphere_and_empties_the_space_around_it() -> None:
    made = method(300)
    cameras = orbit(5, 16, turn=0.3)
    truth, depth = photograph(cameras)
    with torch.no_grad():
        view = made.predictor().render(cameras)
    psnr = float(-10 * torch.log10((view.rgb - truth / 255).square().mean()))
    assert psnr > 20
    core = torch.nn.functional.avg_pool2d((depth > 0).float(), 3, 1, 1) == 1
    assert float(view.opacity[core].mean()) > 0.8
    assert float((view.depth - depth)[core].abs().mean()) < 0.4
    assert float(made.field.grid.occupied.float().mean()) < 0.6
    rays = flat(camera_rays(cameras))
    kept = len(made.field.sample(rays).ray)
    made.field.grid.occupied.fill_(True)
    assert kept < 0.6 * len(made.field.sample(rays).ray)


def test_rays_fill_the_batch_of_samples() -> None:
    made = method(60, batch_rays=4096)
    rays, _ = made.views.sample_rays(made.rays_a_step, made.context.generator("rays"))
    rendered = made.field.render(rays, made.field.sample(rays), made.context.autocast, made.leave_out)
    assert 0.5 < len(rendered.samples.ray) / SMALL["batch_samples"] < 2


def test_samples_that_add_nothing_change_neither_colour_nor_gradient() -> None:
    """The network asked everywhere, and composited written out."""
    made = method(200, stop_below=1e-2)
    field, rays = made.field, flat(camera_rays(orbit(3, 16, turn=0.1)))
    field.grid.occupied.fill_(True)
    with torch.no_grad():  # no density in much of space, and a wall in the rest
        field.network.density.weight.mul_(20)
        field.network.density.bias.sub_(10)
    samples = field.sample(rays)
    rendered = field.render(rays, samples, made.context.autocast, leave_out=True)
    assert len(rendered.samples.ray) < 0.7 * len(samples.ray)

    ray, depths, lengths = samples
    position = field.encode(rays.origins[ray] + depths[:, None] * rays.directions[ray])
    direction = field.encode_direction(torch.nn.functional.normalize(rays.directions, dim=-1))
    raw, rgb = field.network(position[:, None], direction[ray])
    optical = raw[:, 0].relu() * lengths * rays.directions.norm(dim=-1)[ray]
    weights, light, last = [], torch.ones(()), -1
    for index, depth in zip(ray.tolist(), optical):
        light = torch.ones(()) if index != last else light
        weights.append(light * (1 - torch.exp(-depth)) if light >= 1e-2 else torch.zeros(()))
        light, last = light * torch.exp(-depth), index
    of_ray = torch.zeros(len(rays.origins), len(ray)).index_put((ray, torch.arange(len(ray))), torch.stack(weights))
    colour = of_ray @ rgb[:, 0] + (1 - of_ray.sum(1, keepdim=True)) * field.background
    torch.testing.assert_close(rendered.rgb, colour, atol=1e-5, rtol=1e-4)
    pull = torch.randn(colour.shape, generator=torch.Generator().manual_seed(0))
    own, wanted = (torch.autograd.grad(x, list(field.network.parameters()), pull) for x in (rendered.rgb, colour))
    for mine, theirs in zip(own, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-3)


def test_a_resumed_run_is_the_same_to_the_bit() -> None:
    whole, first = method(), method()
    run(whole, 24, 24)
    run(first, 20, 24)
    file = io.BytesIO()
    torch.save({"method": first.state_dict(), "context": first.context.state_dict()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    resumed = method()
    resumed.load_state_dict(state["method"])
    resumed.context.load_state_dict(state["context"])
    resumed.context.progress = 20 / 24
    run(resumed, 4, 24)
    for value, other in zip(whole.field.state_dict().values(), resumed.field.state_dict().values()):
        assert torch.equal(value, other)


def test_a_ray_through_nothing_is_background() -> None:
    made = method()
    made.field.grid.occupied.fill_(False)
    with torch.no_grad():
        view = made.predictor().render(orbit(1, 8))
    assert torch.equal(view.rgb, made.field.background.expand(1, 8, 8, 3))
    assert not view.opacity.any()
    assert not view.depth.any()
