"""Principal component analysis: the best linear autoencoder of a code size, in closed form.

K. Pearson, On lines and planes of closest fit to systems of points in space, 1901.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from adlbench.benchmark.api import Batch, Context, DataSchema, Method, Modality, TaskKind, TrainingData
from adlbench.methods.base.images import to_unit
from adlbench.methods.base.supervised import check_items


@dataclass(eq=False, kw_only=True)
class PCA(Method):
    """Projects onto the eigenvectors of the covariance of the pixels that have the largest eigenvalues."""

    serves: ClassVar[frozenset[TaskKind]] = frozenset({TaskKind.RECONSTRUCTION})
    consumes: ClassVar[frozenset[Modality]] = frozenset({Modality.IMAGE})

    CHUNK: ClassVar[int] = 5_000  # images at a time, to bound the memory
    MOST_PIXELS: ClassVar[int] = 8_192  # whose covariance takes half a gigabyte

    code_size: int = 30

    def skip(self, schema: DataSchema) -> str | None:
        pixels = schema.channels * schema.image_size[0] * schema.image_size[1]
        if pixels > self.MOST_PIXELS:
            return f"forms the covariance of all pixels, at most {self.MOST_PIXELS}, and an image has {pixels}"
        if self.code_size > pixels:
            return f"code_size is {self.code_size}, but an image has {pixels} pixels"
        return None

    def setup(self, data: TrainingData, context: Context) -> None:
        self.data, self.context = data, context
        if data.present:
            check_items(data)
        schema = data.schema
        pixels = schema.channels * schema.image_size[0] * schema.image_size[1]
        self.mean = torch.zeros(pixels, device=context.device)  # [D]
        self.components = torch.zeros(self.code_size, pixels, device=context.device)  # [k, D], orthonormal rows

    def step(self) -> Mapping[str, Tensor]:
        count, device = len(self.data.train), self.context.device
        total = torch.zeros(self.mean.numel(), dtype=torch.float64, device=device)
        products = torch.zeros(len(total), len(total), dtype=torch.float64, device=device)
        for start in range(0, count, self.CHUNK):
            index = torch.arange(start, min(start + self.CHUNK, count)).numpy()
            image = to_unit(self.data.train.batch(index)["image"].to(device)).flatten(1).double()
            total += image.sum(0)
            products += image.T @ image
        mean = total / count
        covariance = products / count - torch.outer(mean, mean)
        values, vectors = torch.linalg.eigh(covariance)  # ascending
        self.mean = mean.float()
        self.components = vectors[:, -self.code_size :].T.flip(0).float().contiguous()
        self.context.count(count)
        return {"squared_error": values[: -self.code_size].sum()}  # of the training images, exactly

    def num_parameters(self) -> int:
        return self.mean.numel() + self.components.numel()

    def predictor(self) -> PrincipalComponents:
        return PrincipalComponents(self.mean, self.components)


class PrincipalComponents:
    def __init__(self, mean: Tensor, components: Tensor):
        self.mean, self.components = mean, components

    def encode(self, image: Tensor) -> Tensor:
        return (to_unit(image).flatten(1) - self.mean) @ self.components.T  # [B, k]

    def reconstruct(self, inputs: Batch) -> Tensor:
        image = inputs["image"]
        restored = self.mean + self.encode(image) @ self.components
        return restored.clamp(0.0, 1.0).view(image.shape)
