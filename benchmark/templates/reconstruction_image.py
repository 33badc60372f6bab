"""NewMethod: an autoencoder of images to start from. Replace ``network`` by your own.

AUTHORS, TITLE, VENUE YEAR.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn, optim

from adlbench.benchmark.api import Batch, Context, DataSchema, Method, Modality, TaskKind, TrainingData
from adlbench.methods.base.images import to_unit
from adlbench.methods.base.schedule import warmup_cosine
from adlbench.methods.base.seeding import seeded_init
from adlbench.methods.base.supervised import check_items, frozen_copy


@dataclass(eq=False, kw_only=True)
class NewMethod(Method):
    """The fields are the hyperparameters; name them as the paper does."""

    serves: ClassVar[frozenset[TaskKind]] = frozenset({TaskKind.RECONSTRUCTION})
    consumes: ClassVar[frozenset[Modality]] = frozenset({Modality.IMAGE})

    code_size: int = 30  # numbers per image: compare with methods of the same size
    width: int = 512
    batch_size: int = 128
    learning_rate: float = 2e-3

    def network(self, schema: DataSchema) -> nn.Module:
        pixels = schema.channels * schema.image_size[0] * schema.image_size[1]
        return nn.Sequential(
            nn.Flatten(),
            *(nn.Linear(pixels, self.width), nn.ReLU(), nn.Linear(self.width, self.code_size)),
            *(nn.Linear(self.code_size, self.width), nn.ReLU(), nn.Linear(self.width, pixels), nn.Sigmoid()),
            nn.Unflatten(1, (schema.channels, *schema.image_size)),
        )

    def setup(self, data: TrainingData, context: Context) -> None:
        self.context = context
        with seeded_init(context):
            self.net = self.network(data.schema)
        self.net.to(context.device).train()
        self.optimizer = optim.Adam(self.net.parameters(), lr=self.learning_rate)
        if data.present:
            check_items(data)
            self.batches = context.loader(data.train, self.batch_size)

    def step(self) -> Mapping[str, Tensor]:
        image = to_unit(next(self.batches)["image"])
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * warmup_cosine(self.context.progress, 0.05)
        self.optimizer.zero_grad(set_to_none=True)
        with self.context.autocast():
            output = self.net(image)
        loss = (output.float() - image).square().flatten(1).sum(1).mean()
        loss.backward()
        self.optimizer.step()
        return {"loss": loss.detach()}

    def predictor(self) -> NewMethodPredictor:
        return NewMethodPredictor(frozen_copy(self.net), self.context)


class NewMethodPredictor:
    def __init__(self, net: nn.Module, context: Context):
        self.net, self.context = net, context

    def reconstruct(self, inputs: Batch) -> Tensor:
        with self.context.autocast():
            output: Tensor = self.net(to_unit(inputs["image"])).float()
        return output
