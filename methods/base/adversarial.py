"""Adversarial training, once: give two networks and two losses and you have a method.

The generator's evaluated copy is an exponential moving average of its weights. Real and generated images pass through the
discriminator in batches of their own: in one batch, batch normalisation would tell it which are which.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adlbench.benchmark.api import Context, DataSchema, Method, TrainingData
from adlbench.methods.base.images import normalise
from adlbench.methods.base.seeding import seeded_init
from adlbench.methods.nn.ema import EMA
from adlbench.methods.nn.interpolation import slerp

SAMPLE_BATCH = 500  # images that the generator makes at a time for evaluation


@dataclass(eq=False, kw_only=True)
class AdversarialMethod(Method):
    """A generator of images in [-1, 1] from normal latent codes, against a discriminator."""

    batch_size: int = 128
    latent_size: int = 100
    critic_steps: int = 1  # updates of the discriminator for each of the generator
    ema_decay: float = 0.999

    # ------------------------------------------------------------------------------------------- what an author gives
    @abstractmethod
    def generator_network(self, schema: DataSchema) -> nn.Module:
        """[B, latent_size] -> [B, C, H, W] in [-1, 1], built from the schema only."""

    @abstractmethod
    def discriminator_network(self, schema: DataSchema) -> nn.Module:
        """[B, C, H, W] -> [B] logits (or a critic's values)."""

    @abstractmethod
    def make_optimizer(self, net: nn.Module) -> torch.optim.Optimizer: ...

    @abstractmethod
    def discriminator_loss(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """0-d tensors from images [B, C, H, W]; "discriminator_loss" is minimised, the others are logged."""

    @abstractmethod
    def generator_loss(self, fake: Tensor) -> dict[str, Tensor]:
        """0-d tensors from images with the generator's graph; "generator_loss" is minimised."""

    # ------------------------------------------------------------------------------------------------- the contract
    def setup(self, data: TrainingData, context: Context) -> None:
        self.schema, self.context = data.schema, context
        with seeded_init(context):
            self.generator = self.generator_network(data.schema)
            self.discriminator = self.discriminator_network(data.schema)
        self.generator.to(context.device).train()
        self.discriminator.to(context.device).train()
        self.average = EMA(self.generator, self.ema_decay)
        self.generator_optimizer = self.make_optimizer(self.generator)
        self.discriminator_optimizer = self.make_optimizer(self.discriminator)
        if data.present:
            self.batches = context.loader(data.train, self.batch_size)

    def step(self) -> Mapping[str, Tensor]:
        terms: dict[str, Tensor] = {}
        for remaining in reversed(range(self.critic_steps)):
            real = normalise(next(self.batches)["image"])
            # The last batch is used for the generator too, so only it needs a graph.
            with torch.set_grad_enabled(remaining == 0), self.context.autocast():
                fake = self.generator(self.latent(len(real)))
            with self.context.autocast():
                terms = self.discriminator_loss(real, fake.detach())
            minimise(terms["discriminator_loss"], self.discriminator_optimizer)
        self.discriminator.requires_grad_(False)  # gradients pass through it, and none for its own weights are needed
        with self.context.autocast():
            terms |= self.generator_loss(fake)
        minimise(terms["generator_loss"], self.generator_optimizer)
        self.discriminator.requires_grad_(True)
        self.average.update(self.generator)
        return {name: value.detach() for name, value in terms.items()}

    def predictor(self) -> GeneratorPredictor:
        return GeneratorPredictor(copy.deepcopy(self.average.average), self.latent_size, self.context)

    # -------------------------------------------------------------------------------------------------------- helpers
    def latent(self, count: int) -> Tensor:
        generator = self.context.generator("latent")
        return torch.randn(count, self.latent_size, generator=generator, device=self.context.device)


def minimise(loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


class GeneratorPredictor:
    """A generator in eval mode. Latent codes are drawn on the CPU, so that a seed means the same on every device."""

    def __init__(self, net: nn.Module, latent_size: int, context: Context):
        self.net, self.latent_size, self.context = net.eval().requires_grad_(False), latent_size, context

    def sample(self, n: int, seed: int) -> Tensor:
        return self.decode(torch.randn(n, self.latent_size, generator=torch.Generator().manual_seed(seed)))

    def interpolate(self, seed: int, steps: int) -> Tensor:
        """[steps, C, H, W] along the great circle between two random codes."""
        start, end = torch.randn(2, self.latent_size, generator=torch.Generator().manual_seed(seed))
        return self.decode(slerp(start, end, torch.linspace(0, 1, steps)[:, None]))

    def decode(self, latent: Tensor) -> Tensor:
        with self.context.autocast():
            images = [self.net(part.to(self.context.device)).float() for part in latent.split(SAMPLE_BATCH)]
        return torch.cat(images).add(1).div(2).clamp(0, 1)
