"""NewMethod: a signed distance network, trained on all shapes and adapted to one, to start from.

AUTHORS, TITLE, VENUE YEAR.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn, optim
from torch.nn import functional

from adlbench.benchmark.api import Batch, Context, DataSchema, Method, Modality, TaskKind, TrainingData
from adlbench.methods.base.seeding import seeded_init
from adlbench.methods.base.supervised import check_items, frozen_copy


@dataclass(eq=False, kw_only=True)
class NewMethod(Method):
    """The fields are the hyperparameters; name them as the paper does."""

    serves: ClassVar[frozenset[TaskKind]] = frozenset({TaskKind.RECONSTRUCTION})
    consumes: ClassVar[frozenset[Modality]] = frozenset({Modality.SHAPE})

    width: int = 128
    samples: int = 2048  # of the distance, a step
    learning_rate: float = 1e-3
    fit_steps: int = 300  # of a test shape

    def skip(self, schema: DataSchema) -> str | None:
        return None if {"sdf_points", "sdf"} <= set(schema.fields) else "learns from 'sdf_points' and 'sdf'"

    def setup(self, data: TrainingData, context: Context) -> None:
        self.context = context
        layers: list[nn.Module] = []
        for inputs in (3, self.width, self.width):
            layers += [nn.Linear(inputs, self.width), nn.Softplus(beta=100)]
        with seeded_init(context):
            self.net = nn.Sequential(*layers, nn.Linear(self.width, 1)).to(context.device)
        self.optimizer = optim.Adam(self.net.parameters(), lr=self.learning_rate)
        if data.present:
            check_items(data)
            self.batches = context.loader(data.train, 1)

    def step(self) -> Mapping[str, Tensor]:
        shape = next(self.batches)
        self.context.count(self.samples)
        return {"loss": self.fit(self.net, self.optimizer, shape["sdf_points"][0], shape["sdf"][0], "samples")}

    def fit(self, net: nn.Module, optimizer: optim.Optimizer, points: Tensor, sdf: Tensor, draw: str) -> Tensor:
        """One step on random samples of one shape, points [S, 3] and sdf [S]."""
        generator = self.context.generator(draw)
        chosen = torch.randint(len(points), (self.samples,), generator=generator, device=points.device)
        optimizer.zero_grad(set_to_none=True)
        with self.context.autocast():
            predicted = net(points[chosen])[:, 0]
        loss = functional.l1_loss(predicted.float(), sdf[chosen])
        loss.backward()
        optimizer.step()
        return loss.detach()

    def predictor(self) -> NewMethodPredictor:
        return NewMethodPredictor(self, frozen_copy(self.net))


class NewMethodPredictor:
    def __init__(self, method: NewMethod, net: nn.Module):
        self.method, self.net = method, net

    def adapt(self, observation: Batch) -> NewMethodShape:
        """Goes on training a copy of the network, on what is shown of one test shape."""
        net = frozen_copy(self.net).requires_grad_(True)
        optimizer = optim.Adam(net.parameters(), lr=self.method.learning_rate)
        self.method.context.generator("fit").manual_seed(self.method.context.seed("fit"))  # the same answer each time
        with torch.enable_grad():
            for _ in range(self.method.fit_steps):
                self.method.fit(net, optimizer, observation["sdf_points"], observation["sdf"], "fit")
        return NewMethodShape(net.requires_grad_(False), self.method.context)


class NewMethodShape:
    def __init__(self, net: nn.Module, context: Context):
        self.net, self.context = net, context

    def query(self, points: Tensor) -> Tensor:
        with self.context.autocast():
            distance: Tensor = self.net(points).float()
        return distance
