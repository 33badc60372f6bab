"""NewMethod: a variational autoencoder to start from. Replace the networks and ``step`` by your own.

AUTHORS, TITLE, VENUE YEAR.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn, optim
from torch.nn import functional

from adlbench.benchmark.api import Context, Method, Modality, TaskKind, TrainingData
from adlbench.methods.base.images import to_unit
from adlbench.methods.base.seeding import seeded_init
from adlbench.methods.base.supervised import check_items, frozen_copy


@dataclass(eq=False, kw_only=True)
class NewMethod(Method):
    """The fields are the hyperparameters; name them as the paper does."""

    serves: ClassVar[frozenset[TaskKind]] = frozenset({TaskKind.GENERATION})
    consumes: ClassVar[frozenset[Modality]] = frozenset({Modality.IMAGE})

    latent: int = 16
    width: int = 256
    batch_size: int = 128
    learning_rate: float = 2e-3

    def setup(self, data: TrainingData, context: Context) -> None:
        self.schema, self.context = data.schema, context
        pixels = data.schema.channels * math.prod(data.schema.image_size)
        with seeded_init(context):
            self.encoder = mlp(pixels, self.width, 2 * self.latent)
            self.decoder = mlp(self.latent, self.width, pixels)
        self.nets = nn.ModuleList([self.encoder, self.decoder]).to(context.device)
        self.optimizer = optim.Adam(self.nets.parameters(), lr=self.learning_rate)
        if data.present:
            check_items(data)
            self.batches = context.loader(data.train, self.batch_size)

    def step(self) -> Mapping[str, Tensor]:
        image = to_unit(next(self.batches)["image"]).flatten(1)
        noise = torch.randn(len(image), self.latent, device=image.device, generator=self.context.generator("latent"))
        with self.context.autocast():
            mean, log_variance = self.encoder(image).float().chunk(2, dim=1)
            logits = self.decoder(mean + (0.5 * log_variance).exp() * noise).float()
        error = functional.binary_cross_entropy_with_logits(logits, image, reduction="none").sum(1).mean()
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
        self.optimizer.zero_grad(set_to_none=True)
        (error + divergence).backward()
        self.optimizer.step()
        return {"loss": (error + divergence).detach(), "divergence": divergence.detach()}

    def predictor(self) -> NewMethodPredictor:
        shape = (self.schema.channels, *self.schema.image_size)
        return NewMethodPredictor(frozen_copy(self.decoder), self.latent, shape, self.context)


class NewMethodPredictor:
    def __init__(self, decoder: nn.Module, latent: int, shape: tuple[int, ...], context: Context):
        self.decoder, self.latent, self.shape, self.context = decoder, latent, shape, context

    def sample(self, n: int, seed: int) -> Tensor:
        noise = torch.randn(n, self.latent, generator=torch.Generator().manual_seed(seed)).to(self.context.device)
        with self.context.autocast():
            logits: Tensor = self.decoder(noise).float()
        return logits.sigmoid().view(n, *self.shape)


def mlp(inputs: int, width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs)
    )
