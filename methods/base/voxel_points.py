"""What networks on sparse voxels share: from a batch of point clouds to a sparse tensor, and augmentation on the way."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from adlbench.benchmark.api import AdlbenchError, Batch, Context, DataSchema, TrainingData
from adlbench.methods.base.points import jitter
from adlbench.methods.base.supervised import SupervisedMethod
from adlbench.methods.nn.sparse_tensor import SparseTensor, Voxels, quantise, resolve_backend, sparse_tensor

FEATURES = {"constant": 1, "offset": 3, "position": 3, "normals": 3}  # name -> channels


@dataclass(eq=False, kw_only=True)
class VoxelMethod(SupervisedMethod):
    """Supervised training on the occupied voxels of point clouds."""

    synchronises: ClassVar[str] = "the numbers of voxels, and of pairs at each tap of a kernel, size the buffers"

    voxel_size: float = 0.05  # in the units of the points
    features: tuple[str, ...] = ("constant",)  # of a voxel: "constant" 1; the others are means over its points
    backend: str = "auto"  # "torch", "minkowski", or "auto"

    optimizer_name: str = "sgd"  # or "adamw"
    momentum: float = 0.9  # of SGD
    poly_power: float = 0.0  # the rate falls as (1 - progress)^power; 0 for cosine

    up_axis: int = 1  # rotation is about this axis of the points: 0 x, 1 y, 2 z
    rotate: bool = True  # augmentation: any angle
    scale: float = 0.1  # 1 ± scale
    flip: float = 0.5  # probability of a reflection in each horizontal axis
    jitter_sigma: float = 0.0  # in the units of the points, clipped at twice that

    def setup(self, data: TrainingData, context: Context) -> None:
        unknown = [name for name in self.features if name not in FEATURES]
        if unknown or not self.features:
            raise AdlbenchError(f"features {list(self.features)}: choose one or more of {', '.join(FEATURES)}")
        if self.voxel_size <= 0:
            raise AdlbenchError(f"voxel_size {self.voxel_size} must be positive")
        self.resolved_backend = resolve_backend(self.backend, context.device)
        super().setup(data, context)
        if data.present and context.device.type == "cpu":
            self.compile_loops(data)

    def compile_loops(self, data: TrainingData) -> None:
        """Take what numba compiles for the first step out of the training's time: some seconds, once on a machine.

        A step of a copy, whose dropout draws numbers that nobody else would have had.
        """
        net = copy.deepcopy(self.net)
        with torch.random.fork_rng(devices=[]):
            with self.context.autocast():
                terms = self.loss(net, data.train.batch(range(min(2, len(data.train)))))
            terms["loss"].backward()

    def skip(self, schema: DataSchema) -> str | None:
        if "normals" in self.features and "normals" not in schema.fields:
            return "uses normals as features, which this dataset does not have"
        return super().skip(schema)

    @property
    def in_channels(self) -> int:
        return sum(FEATURES[name] for name in self.features)

    def voxels(self, batch: Batch) -> tuple[SparseTensor, Voxels]:
        """The occupied voxels of ``points`` [B, P, 3] with their features."""
        points = batch["points"]
        voxels = quantise(points, self.voxel_size)
        parts = []
        for name in self.features:
            if name == "constant":
                parts.append(points.new_ones(len(voxels.coordinates), 1))
            elif name == "offset":  # from the voxel's centre, in voxels: [-0.5, 0.5]
                scaled = points / self.voxel_size
                parts.append(voxels.average(scaled - scaled.floor() - 0.5))
            elif name == "position":
                parts.append(voxels.average(points))
            else:
                parts.append(voxels.average(batch["normals"]))
        features = torch.cat(parts, dim=1)
        return sparse_tensor(features, voxels.coordinates, len(points), self.resolved_backend), voxels

    def augment(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        count = len(batch["points"])
        turn = random_turns(count, self.up_axis, generator, rotate=self.rotate, flip=self.flip)
        zoom = 1.0 + self.scale * (2.0 * torch.rand(count, 1, 1, generator=generator) - 1.0)
        changed = {**batch, "points": batch["points"] @ turn * zoom}
        if self.jitter_sigma > 0:
            changed["points"] = jitter(changed["points"], self.jitter_sigma, 2 * self.jitter_sigma, generator)
        if "normals" in batch:
            changed["normals"] = batch["normals"] @ turn  # orthogonal: normals turn as points do
        return changed

    def make_optimizer(self, net: nn.Module) -> torch.optim.Optimizer:
        if self.optimizer_name == "adamw":
            return super().make_optimizer(net)
        if self.optimizer_name != "sgd":
            raise AdlbenchError(f"optimizer_name '{self.optimizer_name}' is neither 'sgd' nor 'adamw'")
        parameters = net.parameters()
        return torch.optim.SGD(parameters, self.learning_rate, self.momentum, weight_decay=self.weight_decay)

    def learning_rate_at(self, progress: float) -> float:
        if self.poly_power > 0 and progress >= self.warmup:
            return self.learning_rate * (1.0 - min(progress, 1.0)) ** self.poly_power
        return super().learning_rate_at(progress)


def random_turns(
    count: int, up_axis: int, generator: torch.Generator, *, rotate: bool = True, flip: float = 0.5
) -> Tensor:
    """Orthogonal matrices [count, 3, 3] that keep ``up_axis``: any angle about it, reflections in the other two axes."""
    angle = torch.rand(count, generator=generator) * (2 * math.pi) * rotate
    signs = 1.0 - 2.0 * (torch.rand(count, 2, generator=generator) < flip).float()
    a, b = (up_axis + 1) % 3, (up_axis + 2) % 3
    turn = torch.zeros(count, 3, 3)
    turn[:, up_axis, up_axis] = 1.0
    turn[:, a, a], turn[:, a, b] = angle.cos() * signs[:, 0], angle.sin() * signs[:, 1]
    turn[:, b, a], turn[:, b, b] = -angle.sin() * signs[:, 0], angle.cos() * signs[:, 1]
    return turn
