"""How much sooner a NeRF has the same pictures with an occupancy grid. Seconds of CPU time on one thread.

    python tests/benchmarks/occupancy_speed.py                                       the tabletop
    python tests/benchmarks/occupancy_speed.py --dataset nerf_synthetic --instance lego

Trainings of one network take turns, two seconds each: a straightforward renderer ("every step": plain torch, asked at every
step through the scene's bounding sphere, with the batch of rays and the learning rate of the one with the grid); the same with
the fused layers that ``nerf`` and ``nerf_occupancy`` use on a CPU with Intel AMX; the paper's NeRF (coarse and fine, fused
too); and the one with the grid, that takes the same steps but in occupied cells only. All else is as at fidelity ``short``.
Those without a grid train for ``--seconds`` each, the one with it for ``--seconds / --share``, with their whole schedules of
the learning rate. Held-out views are rendered between the turns, which is not counted. The table says when each reached the
PSNR that the others ended with, and one and three decibels less.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

from adlbench.benchmark.api import Budget, Cameras, DataSchema, TrainingData
from adlbench.benchmark.cell import load_data, make_context
from adlbench.benchmark.clock import Clock
from adlbench.benchmark.config import build_method
from adlbench.benchmark.metrics.image import psnr, quantize
from adlbench.benchmark.plan import plan
from adlbench.benchmark.specs import Request
from adlbench.methods.nn import fused_mlp
from adlbench.methods.nn.rays import Rays, sphere_bounds
from adlbench.methods.nn.volume_rendering import accumulate, composite, interval_lengths, stratified_depths
from adlbench.methods.novel_view_synthesis.nerf import (
    Autocast,
    NeRF,
    RadianceField,
    RayRendering,
    encode_position,
)

TURN = 2.0  # seconds


class EveryStep(RadianceField):
    """One network at ``steps`` stratified depths through the bounding sphere."""

    steps = 0

    def render(
        self, rays: Rays, autocast: Autocast, generator: torch.Generator | None = None
    ) -> tuple[RayRendering, RayRendering]:
        direction = self.encode_direction(F.normalize(rays.directions, dim=-1))
        near, far = sphere_bounds(rays, self.center, self.scale, self.near, self.far)
        depths = stratified_depths(near, far, self.steps, generator)
        with autocast():
            points = (rays.at(depths) - self.center) / self.scale
            density, rgb = self.fine(encode_position(self.encode_position, points), direction)
        weights, _, opacity = composite(F.relu(density), interval_lengths(depths, rays.directions, far))
        colour = accumulate(weights, rgb) + (1 - opacity)[:, None] * self.background
        rendering = RayRendering(colour, depths, weights, opacity)
        return rendering, rendering


@dataclass
class Trainee:
    name: str
    method: Any
    seconds: float  # its budget
    spent: float = 0.0
    steps: int = 0
    curve: list[tuple[float, float]] = field(default_factory=list)  # seconds, PSNR

    def train(self, until: float) -> None:
        with plain_layers() if self.name == "every step" else contextlib.nullcontext():
            while self.spent < until:
                self.method.context.progress = self.spent / self.seconds
                begin = time.process_time()
                self.method.step()
                self.spent += time.process_time() - begin
                self.steps += 1
                self.method.context.step = self.steps

    def look(self, cameras: Cameras, truth: Tensor) -> None:
        with torch.no_grad():
            rgb = self.method.predictor().render(cameras).rgb
        seen = quantize(rgb.permute(0, 3, 1, 2))
        self.curve.append((self.spent, float(psnr(seen, truth.permute(0, 3, 1, 2)).mean())))

    def reached(self, quality: float) -> float | None:
        """Seconds, linear between two looks."""
        before = (0.0, 0.0)
        for seconds, value in self.curve:
            if value >= quality:
                return before[0] + (seconds - before[0]) * (quality - before[1]) / (value - before[1])
            before = (seconds, value)
        return None


def plain_layers() -> AbstractContextManager[object]:
    """Layers of networks are torch's."""
    return mock.patch.object(fused_mlp, "_has_tiles", return_value=False)


def trainee(name: str, arguments: argparse.Namespace, seconds: float, folder: Path) -> Trainee:
    grid = plan(request(arguments, "nerf_occupancy")).cells[0]
    cell = grid if name == "grid" else plan(request(arguments, "nerf")).cells[0]
    changed: dict[str, Any] = {}
    if name == "grid":
        changed = dict(arguments.set)
    elif name != "nerf":
        rates = ("learning_rate", "final_learning_rate")
        changed = {rate: grid.parameters[rate] for rate in rates} | {"batch_rays": arguments.rays}
    made: Any = build_method(cell.method, cell.parameters | changed)
    data = load_data(cell)
    context = make_context(cell, folder, Clock())
    context.budget = Budget(seconds=seconds)
    made.setup(TrainingData(data.schema, data.train), context)
    if name.startswith("every step"):
        made.field = every_step(made, data.schema, grid.parameters)
        made.optimizer = torch.optim.Adam(made.field.fine.parameters(), lr=made.learning_rate, eps=1e-7, fused=True)
    return Trainee(name, made, seconds)


def every_step(method: NeRF, schema: DataSchema, parameters: dict[str, Any]) -> EveryStep:
    torch.manual_seed(0)
    made = EveryStep(method, schema)
    made.steps = parameters["steps_across"]
    return made


def request(arguments: argparse.Namespace, method: str) -> Request:
    return Request(
        task=("novel_view_synthesis",),
        dataset=(arguments.dataset,),
        instance=(arguments.instance,) if arguments.instance else (),
        method=(method,),
        fidelity="short",
        seed=(arguments.seed,),
        device="cpu",
    )


def held_out(arguments: argparse.Namespace) -> tuple[Cameras, Tensor]:
    """Some views of the test split, evenly spread over it."""
    data = load_data(plan(request(arguments, "nerf")).cells[0])
    number = len(data.test)
    chosen = [i * number // arguments.views for i in range(arguments.views)]
    views = data.test.batch(chosen)
    height, width = views["image"].shape[1:3]
    cameras = Cameras(views["world_to_camera"].float(), views["intrinsics"].float(), height, width)
    return cameras, views["image"]


def table(trainees: Iterable[Trainee]) -> str:
    *others, grid = trainees
    lines = ["| peer | PSNR | peer [s] | grid [s] | ratio |", "|---|--:|--:|--:|--:|"]
    for peer in others:
        best = max(value for _, value in peer.curve)
        for quality in (best - 3, best - 1, best):
            theirs, own = peer.reached(quality), grid.reached(quality)
            reached = f"{own:.1f} | {theirs / own:.1f}" if own and theirs else f"not in {grid.seconds:.0f} | "
            lines.append(f"| {peer.name} | {quality:.2f} | {theirs:.1f} | {reached} |")
    return "\n".join(lines)


def setting(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    return name, json.loads(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="tabletop")
    parser.add_argument("--instance", default="")
    parser.add_argument("--peers", nargs="*", default=["every step", "every step, fused", "nerf"])
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument(
        "--share", type=float, default=3, help="of the seconds, that the one with the grid does without"
    )
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--looks", type=int, default=10, help="at held-out views, in each training")
    parser.add_argument("--rays", type=int, default=192, help="a step: about what the one with the grid takes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", type=setting, nargs="*", default=[], help="NAME=VALUE of the one with the grid")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cameras, truth = held_out(arguments)
    with tempfile.TemporaryDirectory() as folder:
        for name in (*arguments.peers, "grid"):
            trainee(name, arguments, 1.0, Path(folder)).train(until=1e-9)  # one step: what is compiled is compiled then
        trainees = [trainee(name, arguments, arguments.seconds, Path(folder)) for name in arguments.peers]
        trainees.append(trainee("grid", arguments, arguments.seconds / arguments.share, Path(folder)))
        while any(each.spent < each.seconds for each in trainees):
            for each in trainees:
                due = each.seconds * (len(each.curve) + 1) / arguments.looks
                if each.spent < each.seconds:
                    each.train(min(each.spent + TURN, due, each.seconds))
                    if each.spent >= due:
                        each.look(cameras, truth)
                        print(
                            f"{each.name}: {each.spent:.1f} s, {each.steps} steps, {each.curve[-1][1]:.2f} dB",
                            flush=True,
                        )
    print(table(trainees))


if __name__ == "__main__":
    main()
