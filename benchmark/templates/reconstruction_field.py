"""NewMethod: a network from a position to the signal there, to start from. Replace ``network`` by your own.

AUTHORS, TITLE, VENUE YEAR.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn, optim
from torch.nn import functional

from adlbench.benchmark.api import Context, DataSchema, Method, Modality, TaskKind, TrainingData
from adlbench.methods.base.seeding import seeded_init
from adlbench.methods.base.supervised import check_items, frozen_copy
from adlbench.methods.nn.positional_encoding import FourierFeatures


@dataclass(eq=False, kw_only=True)
class NewMethod(Method):
    """The fields are the hyperparameters; name them as the paper does."""

    serves: ClassVar[frozenset[TaskKind]] = frozenset({TaskKind.RECONSTRUCTION})
    consumes: ClassVar[frozenset[Modality]] = frozenset({Modality.FIELD})

    width: int = 128
    num_features: int = 128
    sigma: float = 10.0  # of the frequencies, cycles in [-1, 1]
    batch_size: int = 4096
    learning_rate: float = 3e-3

    def skip(self, schema: DataSchema) -> str | None:
        return None if {"coords", "value"} <= set(schema.fields) else "fits fields of 'coords' and 'value'"

    def network(self, schema: DataSchema) -> nn.Module:
        encoding = FourierFeatures(2, self.num_features, self.sigma)
        return nn.Sequential(
            encoding,
            *(nn.Linear(int(encoding.out_features), self.width), nn.ReLU()),
            *(nn.Linear(self.width, self.width), nn.ReLU()),
            *(nn.Linear(self.width, schema.channels), nn.Sigmoid()),
        )

    def setup(self, data: TrainingData, context: Context) -> None:
        self.context = context
        with seeded_init(context):
            self.net = self.network(data.schema).to(context.device)
        self.optimizer = optim.Adam(self.net.parameters(), lr=self.learning_rate)
        if data.present:
            check_items(data)
            self.batches = context.loader(data.train, self.batch_size)

    def step(self) -> Mapping[str, Tensor]:
        batch = next(self.batches)
        self.optimizer.zero_grad(set_to_none=True)
        with self.context.autocast():
            value = self.net(batch["coords"])
        loss = functional.mse_loss(value.float(), batch["value"])
        loss.backward()
        self.optimizer.step()
        return {"loss": loss.detach()}

    def predictor(self) -> NewMethodPredictor:
        return NewMethodPredictor(frozen_copy(self.net), self.context)


class NewMethodPredictor:
    def __init__(self, net: nn.Module, context: Context):
        self.net, self.context = net, context

    def query(self, points: Tensor) -> Tensor:
        with self.context.autocast():
            value: Tensor = self.net(points).float()
        return value
