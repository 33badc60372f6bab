"""DCGAN.

A. Radford, L. Metz and S. Chintala, Unsupervised representation learning with deep convolutional generative adversarial
networks, ICLR 2016. Section 3: strided convolutions instead of pooling, batch normalisation everywhere but the
generator's output and the discriminator's input, ReLU in the generator with a tanh at its end, LeakyReLU 0.2 in the
discriminator, no hidden fully connected layers. Section 4: weights from N(0, 0.02), Adam with rate 0.0002 and beta1 0.5.

From later work: one-sided label smoothing (Salimans et al. 2016), an exponential moving average of the generator (Karras
et al. 2018), separate batches of real and generated images, interpolation along great circles (White 2016).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from adlbench.benchmark.api import DataSchema, Modality, TaskKind
from adlbench.methods.base.adversarial import AdversarialMethod


@dataclass(eq=False, kw_only=True)
class DCGAN(AdversarialMethod):
    serves: ClassVar[frozenset[TaskKind]] = frozenset({TaskKind.GENERATION})
    consumes: ClassVar[frozenset[Modality]] = frozenset({Modality.IMAGE})

    width: int = 128  # channels of the stage next to the image; doubles with every stage further in
    kernel_size: int = 5  # 5 in the paper, 4 in many re-implementations
    learning_rate: float = 2e-4
    beta1: float = 0.5
    decay_from: float = (
        1.0  # share of the budget after which the rates fall linearly to zero; 1: constant, as in the paper
    )
    real_target: float = 0.9  # one-sided label smoothing; the target of generated images stays 0

    def skip(self, schema: DataSchema) -> str | None:
        if min(schema.image_size) < 8:
            return f"halves images at least twice, which needs 8 pixels a side, not {min(schema.image_size)}"
        return None

    def generator_network(self, schema: DataSchema) -> nn.Module:
        return initialise(Generator(schema.channels, schema.image_size, self.latent_size, self.width, self.kernel_size))

    def discriminator_network(self, schema: DataSchema) -> nn.Module:
        return initialise(Discriminator(schema.channels, schema.image_size, self.width, self.kernel_size))

    def make_optimizer(self, net: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(net.parameters(), self.learning_rate, (self.beta1, 0.999), fused=True)

    def step(self) -> dict[str, Tensor]:
        left = (1 - self.context.progress) / max(1 - self.decay_from, 1e-9)
        for optimizer in (self.generator_optimizer, self.discriminator_optimizer):
            optimizer.param_groups[0]["lr"] = self.learning_rate * min(1.0, left if self.decay_from < 1 else 1.0)
        return dict(super().step())

    def discriminator_loss(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        real_logits, fake_logits = self.discriminator(real).float(), self.discriminator(fake).float()
        return {
            "discriminator_loss": binary_cross_entropy(real_logits, self.real_target)
            + binary_cross_entropy(fake_logits, 0.0),
            "real_probability": real_logits.detach().sigmoid().mean(),
            "fake_probability": fake_logits.detach().sigmoid().mean(),
        }

    def generator_loss(self, fake: Tensor) -> dict[str, Tensor]:
        # The non-saturating loss of Goodfellow et al. 2014, section 3; its target is not smoothed.
        return {"generator_loss": binary_cross_entropy(self.discriminator(fake).float(), 1.0)}


def binary_cross_entropy(logits: Tensor, target: float) -> Tensor:
    """Mean over the batch of the cross-entropy between sigmoid(logits) and one target for all."""
    return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def stage_sizes(image_size: tuple[int, int], kernel: int) -> list[tuple[int, int]]:
    """Image sizes from the outermost to the innermost stage: halved down to 4 pixels as in the paper, at least twice.

    64 px: 64, 32, 16, 8, 4. With an odd kernel halves are rounded up (28, 14, 7, 4), with an even one down (28, 14, 7, 3).
    The last stage then sees the whole image, which is what makes the discriminator judge more than strokes.
    """
    sizes = [image_size]
    while len(sizes) < 3 or min(sizes[-1]) > 4:
        height, width = sizes[-1]
        sizes.append(((height + kernel % 2) // 2, (width + kernel % 2) // 2))
    return sizes


class Generator(nn.Module):
    """[B, Z] -> [B, C, H, W] in [-1, 1] (figure 1 of the paper, for any image size)."""

    def __init__(self, channels: int, image_size: tuple[int, int], latent_size: int, width: int, kernel: int):
        super().__init__()
        sizes = stage_sizes(image_size, kernel)[::-1]  # e.g. 4, 8, 16, 32, 64
        widths = [width << stage for stage in reversed(range(len(sizes) - 1))]  # e.g. 1024, 512, 256, 128
        layers: list[nn.Module] = [
            nn.Linear(latent_size, widths[0] * sizes[0][0] * sizes[0][1], bias=False),
            nn.Unflatten(1, (widths[0], *sizes[0])),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
        ]
        for stage in range(len(widths) - 1):
            layers += [
                upsampling(widths[stage], widths[stage + 1], kernel, sizes[stage], sizes[stage + 1], bias=False),
                nn.BatchNorm2d(widths[stage + 1]),
                nn.ReLU(inplace=True),
            ]
        self.layers = nn.Sequential(
            *layers, upsampling(widths[-1], channels, kernel, sizes[-2], sizes[-1], bias=True), nn.Tanh()
        )

    def forward(self, latent: Tensor) -> Tensor:
        images: Tensor = self.layers(latent)
        return images


class Discriminator(nn.Module):
    """[B, C, H, W] in [-1, 1] -> [B] logits of being real."""

    def __init__(self, channels: int, image_size: tuple[int, int], width: int, kernel: int):
        super().__init__()
        sizes = stage_sizes(image_size, kernel)
        widths = [width << stage for stage in range(len(sizes) - 1)]  # e.g. 128, 256, 512, 1024
        padding = (kernel - 1) // 2
        layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], kernel, 2, padding), nn.LeakyReLU(0.2, inplace=True)]
        for before, after in pairwise(widths):
            layers += [
                nn.Conv2d(before, after, kernel, 2, padding, bias=False),
                nn.BatchNorm2d(after),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        features = widths[-1] * sizes[-1][0] * sizes[-1][1]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, 1), nn.Flatten(0))

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.layers(image)
        return logits


def upsampling(
    channels: int, width: int, kernel: int, before: tuple[int, int], after: tuple[int, int], bias: bool
) -> nn.ConvTranspose2d:
    """The fractionally strided convolution that undoes a halving from ``after`` to ``before``."""
    padding = (kernel - 1) // 2
    missing = [full - ((half - 1) * 2 - 2 * padding + kernel) for half, full in zip(before, after)]
    return nn.ConvTranspose2d(channels, width, kernel, 2, padding, (missing[0], missing[1]), bias=bias)


def initialise(net: nn.Module) -> nn.Module:
    """Weights from N(0, 0.02), those of batch normalisation from N(1, 0.02); biases zero."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0 if isinstance(module, nn.BatchNorm2d) else 0.0, 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return net
