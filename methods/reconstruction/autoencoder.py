"""Deep autoencoder.

G. E. Hinton and R. R. Salakhutdinov, Reducing the dimensionality of data with neural networks, Science 313, 2006: an
encoder 784-1000-500-250-30 with a linear code, the decoder its mirror image, logistic outputs.

The paper needs a stack of restricted Boltzmann machines to find a start from which its logistic units learn. Rectified
units with He's initialisation and Adam need none, so there is no pre-training here.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from adlbench.benchmark.api import Batch, Context, Method, Modality, TaskKind, TrainingData
from adlbench.methods.base.images import to_unit
from adlbench.methods.base.schedule import warmup_cosine
from adlbench.methods.base.seeding import seeded_init
from adlbench.methods.base.supervised import check_items, frozen_copy


class DeepAutoencoder(nn.Module):
    """Images [B, C, H, W] in [0, 1] -> the same through a code [B, code_size]."""

    def __init__(self, shape: tuple[int, int, int], hidden: Sequence[int], code_size: int):
        super().__init__()
        self.shape = shape
        pixels = shape[0] * shape[1] * shape[2]
        self.encoder = nn.Sequential(*mlp([pixels, *hidden, code_size]))
        self.decoder = nn.Sequential(*mlp([code_size, *reversed(hidden), pixels]), nn.Sigmoid())

    def encode(self, image: Tensor) -> Tensor:
        return self.encoder(image.flatten(1))

    def decode(self, code: Tensor) -> Tensor:
        return self.decoder(code).unflatten(1, self.shape)

    def forward(self, image: Tensor) -> Tensor:
        return self.decode(self.encode(image))


def mlp(widths: Sequence[int]) -> list[nn.Module]:
    """Linear layers with ReLU between them, none after the last."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        linear = nn.Linear(inputs, outputs)
        nn.init.kaiming_uniform_(linear.weight, nonlinearity="relu")
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU(inplace=True)]
    return layers[:-1]


@dataclass(eq=False, kw_only=True)
class Autoencoder(Method):
    """Minimises the squared error, summed over an image's pixels: the number that is reported."""

    serves: ClassVar[frozenset[TaskKind]] = frozenset({TaskKind.RECONSTRUCTION})
    consumes: ClassVar[frozenset[Modality]] = frozenset({Modality.IMAGE})

    code_size: int = 30
    hidden: tuple[int, ...] = (1000, 500, 250)  # of the encoder; the decoder's are the reverse
    batch_size: int = 128
    learning_rate: float = 1e-3
    warmup: float = 0.05  # share of the budget

    def setup(self, data: TrainingData, context: Context) -> None:
        self.context = context
        schema = data.schema
        with seeded_init(context):
            self.net = DeepAutoencoder((schema.channels, *schema.image_size), self.hidden, self.code_size)
        self.net.to(context.device).train()
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=self.learning_rate, fused=True)
        if data.present:
            check_items(data)
            self.batches = context.loader(data.train, self.batch_size)

    def step(self) -> Mapping[str, Tensor]:
        image = to_unit(next(self.batches)["image"])
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * warmup_cosine(self.context.progress, self.warmup)
        self.optimizer.zero_grad(set_to_none=True)
        with self.context.autocast():
            output = self.net(image)
        loss = (output.float() - image).square().flatten(1).sum(1).mean()  # the sum over pixels, not their mean
        loss.backward()
        self.optimizer.step()
        return {"squared_error": loss.detach()}

    def predictor(self) -> Autoencoded:
        return Autoencoded(frozen_copy(self.net), self.context)


class Autoencoded:
    def __init__(self, net: nn.Module, context: Context):
        self.net, self.context = net, context

    def reconstruct(self, inputs: Batch) -> Tensor:
        with self.context.autocast():
            return self.net(to_unit(inputs["image"])).float()
