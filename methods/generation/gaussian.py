"""One Gaussian over all pixels, with full covariance, fitted by maximum likelihood: what a model gets for two moments."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from adlbench.benchmark.api import Context, DataSchema, Method, Modality, TaskKind, TrainingData
from adlbench.methods.base.images import to_unit

MAX_PIXELS = 4096  # the covariance has the square of that many entries


@dataclass(eq=False, kw_only=True)
class FittedGaussian(Method):
    serves: ClassVar[frozenset[TaskKind]] = frozenset({TaskKind.GENERATION})
    consumes: ClassVar[frozenset[Modality]] = frozenset({Modality.IMAGE})

    def skip(self, schema: DataSchema) -> str | None:
        pixels = schema.channels * math.prod(schema.image_size)
        if pixels > MAX_PIXELS:
            return f"a covariance of {pixels} values a picture is too large; at most {MAX_PIXELS}"
        return None

    def setup(self, data: TrainingData, context: Context) -> None:
        self.schema, self.context, self.train = data.schema, context, data.train
        pixels = data.schema.channels * math.prod(data.schema.image_size)
        self.mean = torch.zeros(pixels, device=context.device)
        self.root = torch.zeros(pixels, pixels, device=context.device)  # root @ root.T is the covariance

    def step(self) -> Mapping[str, Tensor]:
        """The fit in closed form. The covariance of images is singular (the corners are always black), hence no Cholesky."""
        count, size = len(self.train), len(self.mean)
        total = torch.zeros(size, dtype=torch.float64)
        second = torch.zeros(size, size, dtype=torch.float64)
        for start in range(0, count, 4096):
            image = self.train.batch(range(start, min(start + 4096, count)))["image"]
            x = to_unit(image).flatten(1)
            total += x.sum(0, dtype=torch.float64)
            second += (x.T @ x).double()
        self.context.count(count)
        mean = total / count
        values, vectors = torch.linalg.eigh(second / count - mean.outer(mean))
        self.mean = mean.float().to(self.context.device)
        self.root = (vectors * values.clamp_min(0).sqrt()).float().to(self.context.device)
        return {"variance": values.sum().float()}

    def num_parameters(self) -> int:
        return len(self.mean) * (len(self.mean) + 3) // 2  # a mean and one half of the covariance

    def predictor(self) -> GaussianPredictor:
        return GaussianPredictor(self.mean.clone(), self.root.clone(), self.schema)


class GaussianPredictor:
    def __init__(self, mean: Tensor, root: Tensor, schema: DataSchema):
        self.mean, self.root, self.shape = mean, root, (schema.channels, *schema.image_size)

    def sample(self, n: int, seed: int) -> Tensor:
        """Draws, cut off at black and white."""
        noise = torch.randn(n, len(self.mean), generator=torch.Generator().manual_seed(seed)).to(self.mean.device)
        return (self.mean + noise @ self.root.T).clamp(0, 1).view(n, *self.shape)
